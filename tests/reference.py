"""Slow, obvious NumPy twins of what the package computes."""

import numpy as np


def convolve_same(image, kernel):
    """Convolution of `(h, w, c)` with `(kh, kw, c, f)`, odd kernel, zeros around, stride 1."""
    height, width, _ = image.shape
    kernel_height, kernel_width, _, filters = kernel.shape
    top, left = kernel_height // 2, kernel_width // 2
    output = np.zeros((height, width, filters))
    for row in range(height):
        for column in range(width):
            for i in range(kernel_height):
                for j in range(kernel_width):
                    y, x = row + i - top, column + j - left
                    if 0 <= y < height and 0 <= x < width:
                        output[row, column] += image[y, x] @ kernel[i, j]
    return output


def upsample_nearest(image):
    """`(h, w, c)` to `(2h, 2w, c)`, each pixel four times."""
    return np.kron(image, np.ones((2, 2, 1)))


def upsample_bilinear(image):
    """`(h, w, c)` to `(2h, 2w, c)`; pixel centres at half-integers, edges repeated."""
    height, width, channels = image.shape
    output = np.zeros((2 * height, 2 * width, channels))
    for row in range(2 * height):
        for column in range(2 * width):
            y, x = (row + 0.5) / 2 - 0.5, (column + 0.5) / 2 - 0.5
            top, left = int(np.floor(y)), int(np.floor(x))
            for i, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                for j, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                    pixel = image[min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
                    output[row, column] += weight_y * weight_x * pixel
    return output


def transposed_convolution(image, kernel):
    """`(h, w, c)` with kernel `(4, 4, f, c)`, stride 2, to `(2h, 2w, f)`.

    Each input pixel (y, x) adds its multiple of the kernel to rows 2y - 1 .. 2y + 2 and the same
    columns: the transpose of a convolution of stride 2 with "same" padding.
    """
    height, width, _ = image.shape
    output = np.zeros((2 * height, 2 * width, kernel.shape[2]))
    for y in range(height):
        for x in range(width):
            for i in range(4):
                for j in range(4):
                    row, column = 2 * y + i - 1, 2 * x + j - 1
                    if 0 <= row < 2 * height and 0 <= column < 2 * width:
                        output[row, column] += kernel[i, j] @ image[y, x]
    return output


def shuffle_pixels(image):
    """`(h, w, 4f)` to `(2h, 2w, f)`: channel `(2i + j) f + k` becomes pixel (i, j), channel k."""
    height, width, channels = image.shape
    filters = channels // 4
    output = np.zeros((2 * height, 2 * width, filters))
    for i in range(2):
        for j in range(2):
            start = (2 * i + j) * filters
            output[i::2, j::2] = image[:, :, start : start + filters]
    return output


def overlap_counts(true, pred):
    """Pixels that are 1 in both masks, only in `pred`, and only in `true`, one at a time."""
    both = only_pred = only_true = 0
    for a, b in zip(np.ravel(true).tolist(), np.ravel(pred).tolist(), strict=True):
        both += bool(a and b)
        only_pred += bool(b and not a)
        only_true += bool(a and not b)
    return both, only_pred, only_true


def iou_matrix(true, predicted):
    """IoU of each true with each predicted nucleus `(T, P)`, mask by mask."""
    rows = [true == number for number in np.unique(true) if number > 0]
    columns = [predicted == number for number in np.unique(predicted) if number > 0]
    matrix = np.zeros((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            matrix[i, j] = (row & column).sum() / (row | column).sum()
    return matrix


def best_matching(iou, threshold):
    """The most pairs with an IoU above the threshold, and the largest sum of IoU of that many.

    Tries each choice of a partner, or of none, for the first true nucleus, then for the others.
    """
    if len(iou) == 0:
        return 0, 0.0
    choices = [best_matching(iou[1:], threshold)]
    for column in np.flatnonzero(iou[0] > threshold):
        pairs, total = best_matching(np.delete(iou[1:], column, axis=1), threshold)
        choices.append((pairs + 1, total + iou[0, column]))
    return max(choices)


def segmentation_errors(true, predicted):
    """Numbers of missed, extra, split and merged nuclei, mask by mask."""

    def lies_in(labels, number, other_labels):
        """Which nucleus of `other_labels` holds more than half of this one, or None."""
        inside = other_labels[labels == number]
        for other in set(inside.tolist()) - {0}:
            if (inside == other).mean() > 0.5:
                return other
        return None

    def lost_and_cut(labels, other_labels):
        lost = cut = 0
        for number in set(labels.ravel().tolist()) - {0}:
            others = set(other_labels.ravel().tolist()) - {0}
            parts = [n for n in others if lies_in(other_labels, n, labels) == number]
            lost += not parts and lies_in(labels, number, other_labels) is None
            cut += len(parts) >= 2
        return lost, cut

    missed, split = lost_and_cut(true, predicted)
    extra, merged = lost_and_cut(predicted, true)
    return missed, extra, split, merged


def tversky_loss(true, probabilities, alpha, beta, smooth):
    """Tversky loss of one image, pixel by pixel; alpha weighs false positives (Salehi 2017)."""
    both = only_pred = only_true = 0.0
    for g, p in zip(np.ravel(true).tolist(), np.ravel(probabilities).tolist(), strict=True):
        both += p * g
        only_pred += p * (1 - g)
        only_true += (1 - p) * g
    return 1 - (both + smooth) / (both + alpha * only_pred + beta * only_true + smooth)


def lovasz_hinge(true, logits):
    """Lovász extension of the Jaccard loss at the hinge errors of one image (Berman 2018, eq. 9).

    The Jaccard losses come from masks: the true one, and the one with the worst pixels turned.
    """
    true, logits = np.ravel(true).astype(bool), np.ravel(logits)
    errors = [max(0.0, 1 - (f if g else -f)) for g, f in zip(true, logits, strict=True)]
    loss, before, predicted = 0.0, 0.0, true.copy()
    for pixel in sorted(range(len(errors)), key=lambda pixel: -errors[pixel]):
        predicted[pixel] = not true[pixel]
        jaccard = 1 - (true & predicted).sum() / (true | predicted).sum()
        loss += errors[pixel] * (jaccard - before)
        before = jaccard
    return loss


def border_weights(label_map, border_weight, sigma):
    """The U-Net paper's weight map without class weights, pixel by pixel and nucleus by nucleus."""
    weights = np.ones(label_map.shape)
    for y, x in np.ndindex(label_map.shape):
        distances = sorted(
            min(np.hypot(y - i, x - j) for i, j in np.argwhere(label_map == number))
            for number in set(label_map.ravel().tolist()) - {0}
        )
        if len(distances) >= 2:
            total = distances[0] + distances[1]
            weights[y, x] += border_weight * np.exp(-(total**2) / (2 * sigma**2))
    return weights


def boundary(mask):
    """Coordinates of the pixels of a mask with background, or the outside, beside them."""
    padded = np.pad(mask, 1)
    return [
        (y, x)
        for y, x in np.argwhere(mask).tolist()
        if not all(padded[y + 1 + i, x + 1 + j] for i, j in [(-1, 0), (1, 0), (0, -1), (0, 1)])
    ]


def boundary_counts(true, pred, tolerance, counted=None):
    """Predicted boundary pixels near a true one, all; true ones near a predicted one, all."""
    if counted is None:
        counted = np.ones(true.shape, bool)
    true = np.where(counted, true, pred)
    counts = []
    for mine, other in ((boundary(pred), boundary(true)), (boundary(true), boundary(pred))):
        mine = [point for point in mine if counted[point]]
        near = sum(any(np.hypot(y - i, x - j) <= tolerance for i, j in other) for y, x in mine)
        counts += [near, len(mine)]
    return counts


def f1_of_boundary(near_true, predicted, near_predicted, true):
    """F1 of such counts; 0 / 0 is 1, but for the F1 of two zeros, which is 0."""
    precision = near_true / predicted if predicted else 1.0
    recall = near_predicted / true if true else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
