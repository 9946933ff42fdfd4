// What a camera adds to the network's answer, as apps/web does it: pixels.js (guided upsampling),
// smoothing.js (over time) and effects.js (blur). Plain Kotlin: tests/test_mobile_examples.py
// compiles this file and compares it with the JavaScript, where there is a Kotlin compiler.

package org.portraitnet.blur

import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.nextUp
import kotlin.math.round // to even, as in Python
import kotlin.math.sqrt

const val FLOOR = 0.1f // these five: apps/video/smoothing.py
const val NOISE = 2f
const val CHANGED = 8f
const val DOUBT = 0.25f
const val MOVED = 0.75f
const val GUIDE_SIDE = 112 // pixels; these seven: portraitnet/postprocess.py
const val GUIDE_RADIUS = 0.025
const val GUIDE_EPSILON = 1.25e-3f
const val APPLY_SIDE = 800 // pixels
const val SPIKE = 0.0025
const val SPECK = 0.001
const val SUPPORT = 0.3
const val STILL = 0.001953125f // 1 / 512: smaller differences are not worth the time
const val CLEAR = 0.33f // background up to CLEAR, person from SOLID on: postprocess.py
const val SOLID = 0.67f
const val THRESHOLD = 0.5f // person above it: portraitnet/images.py
const val BLUR_SIGMA = 6.0 // pixels, sigma at which a wide blur is computed: portraitnet/effects.py
const val BLUR = 0.02 // sigma, as a fraction of the image's longer side

/** Rows from the top, channels interleaved: RGB 0..255, or one channel 0..1. */
class Picture(
    val width: Int,
    val height: Int,
    val channels: Int,
    val data: FloatArray = FloatArray(width * height * channels)
)

/** Width and height after shrinking to at most `side` pixels on the longer side. */
fun limitedSize(image: Picture, side: Double): Pair<Int, Int> {
    val ratio = min(1.0, side / max(image.width, image.height))
    fun shrunk(length: Int) = max(1, round(length * ratio).toInt())
    return Pair(shrunk(image.width), shrunk(image.height))
}

/** For each of newLength pixels the two of `length` it lies between, and how near the second is. */
class Neighbours(length: Int, newLength: Int) {
    val first = IntArray(newLength)
    val second = IntArray(newLength)
    val fraction = FloatArray(newLength)

    init {
        for (i in 0 until newLength) {
            val at = ((i + 0.5) * length / newLength - 0.5).coerceIn(0.0, length - 1.0)
            first[i] = floor(at).toInt()
            second[i] = min(length - 1, first[i] + 1)
            fraction[i] = (at - first[i]).toFloat()
        }
    }
}

/** Bilinear, in both directions. */
fun interpolate(source: Picture, width: Int, height: Int): Picture {
    val result = Picture(width, height, source.channels)
    val columns = Neighbours(source.width, width)
    val rows = Neighbours(source.height, height)
    val c = source.channels
    val narrow = FloatArray(source.width * c)
    var to = 0
    for (y in 0 until height) {
        val above = rows.first[y] * narrow.size
        val below = rows.second[y] * narrow.size
        for (i in narrow.indices) {
            val upper = source.data[above + i]
            narrow[i] = upper + rows.fraction[y] * (source.data[below + i] - upper)
        }
        for (x in 0 until width) {
            for (k in 0 until c) {
                val left = narrow[c * columns.first[x] + k]
                val right = narrow[c * columns.second[x] + k]
                result.data[to++] = left + columns.fraction[x] * (right - left)
            }
        }
    }
    return result
}

private fun reflect(index: Int, length: Int): Int {
    var i = index
    while (i < 0 || i >= length) i = if (i < 0) -1 - i else 2 * length - 1 - i
    return i
}

/** Mean over a square window of side 2 * radius + 1, mirrored at the border; any channels. */
fun boxMean(source: Picture, radius: Int): Picture {
    val (width, height, c) = Triple(source.width, source.height, source.channels)
    val passed = FloatArray(source.data.size)
    val result = Picture(width, height, c)
    for (y in 0 until height) slide(source.data, passed, y * width * c, c, width, c, radius)
    for (x in 0 until width) slide(passed, result.data, x * c, width * c, height, c, radius)
    return result
}

/** Running mean along one line of pixels: the first at `start`, the next `step` numbers on. */
private fun slide(
    source: FloatArray, result: FloatArray, start: Int, step: Int, length: Int, channels: Int, radius: Int
) {
    val weight = 1.0 / (2 * radius + 1)
    for (k in start until start + channels) {
        var sum = 0.0
        for (i in -radius..radius) sum += source[k + step * reflect(i, length)]
        for (i in 0 until length) {
            result[k + step * i] = (sum * weight).toFloat()
            sum += source[k + step * reflect(i + radius + 1, length)]
            sum -= source[k + step * reflect(i - radius, length)]
        }
    }
}

/** Brightness of an RGB picture, 8 bits, as OpenCV rounds it. */
fun luma(image: Picture): Picture {
    val result = Picture(image.width, image.height, 1)
    for (i in result.data.indices) {
        val red = image.data[3 * i].toInt()
        val green = image.data[3 * i + 1].toInt()
        val blue = image.data[3 * i + 2].toInt()
        result.data[i] = (4899 * red + 9617 * green + 1868 * blue + 8192 shr 14).toFloat()
    }
    return result
}

private fun ramp(value: Float, low: Float, high: Float) = ((value - low) / (high - low)).coerceIn(0f, 1f)

/**
 * Mixes each frame's probability with the previous result, which counts for 1 - FLOOR, but less
 * where the frame or the mask has changed: so a moving person leaves no trail.
 */
class Smoother {
    private var lastLuma: Picture? = null
    private var last: Picture? = null

    /** @param input RGB and @param probability, of the same size */
    fun smooth(input: Picture, probability: Picture): Picture {
        val grey = boxMean(luma(input), 1)
        val mixed = mix(grey, probability)
        lastLuma = grey
        last = mixed
        return mixed
    }

    private fun mix(grey: Picture, probability: Picture): Picture {
        val old = last ?: return probability
        val oldGrey = lastLuma ?: return probability
        if (old.width != grey.width || old.height != grey.height) return probability
        val changes = Picture(grey.width, grey.height, 2) // of luma and of probability
        for (i in old.data.indices) {
            changes.data[2 * i] = abs(grey.data[i] - oldGrey.data[i])
            changes.data[2 * i + 1] = probability.data[i] - old.data[i]
        }
        val around = boxMean(changes, 2).data
        val mixed = Picture(grey.width, grey.height, 1)
        for (i in old.data.indices) {
            val change = ramp(around[2 * i], NOISE, CHANGED)
            val move = ramp(abs(around[2 * i + 1]), DOUBT, MOVED)
            val weight = FLOOR + (1 - FLOOR) * max(change, move)
            mixed.data[i] = old.data[i] + weight * changes.data[2 * i + 1]
        }
        return mixed
    }
}

/**
 * A probability brought to the image's size, its edges following the image's.
 *
 * @param probability one channel, 0..1, the network's answer
 * @param image RGB, of the size that the result has
 * @param guide the image again, small: the network's input
 */
fun guidedUpsample(probability: Picture, image: Picture, guide: Picture): Picture {
    val (width, height) = limitedSize(image, APPLY_SIDE.toDouble())
    val isSmall = width == image.width && height == image.height
    val applied = if (isSmall) image else rounded(interpolate(image, width, height))
    val (fitted, coarse) = applyFit(probability, applied, guide)
    val refined = withoutSpikes(fitted, coarse)
    withoutSpecks(refined, coarse)
    return if (isSmall) refined else interpolate(refined, image.width, image.height)
}

private fun rounded(source: Picture): Picture {
    for (i in source.data.indices) source.data[i] = (source.data[i] + 0.5f).toInt().toFloat()
    return source
}

/** The probability at the image's size: with the fit to its colours, and only interpolated. */
private fun applyFit(probability: Picture, image: Picture, guide: Picture): Pair<Picture, Picture> {
    val (width, height) = limitedSize(image, GUIDE_SIDE.toDouble())
    val answer = interpolate(probability, width, height)
    for (i in answer.data.indices) {
        val p = answer.data[i]
        val q = 1 - p
        answer.data[i] = p * p / (p * p + q * q)
    }
    val fit = colorFit(rounded(interpolate(guide, width, height)), answer).data
    val (lowest, highest) = extremes(answer)

    val refined = Picture(image.width, image.height, 1)
    val coarse = Picture(image.width, image.height, 1)
    val columns = Neighbours(width, image.width)
    val rows = Neighbours(height, image.height)
    val channels = 7 // of a guide's pixel: slopes and offset, lowest, highest, the answer itself
    val table = FloatArray(width * height * channels)
    for (i in answer.data.indices) {
        fit.copyInto(table, channels * i, 4 * i, 4 * i + 4)
        table[channels * i + 4] = lowest[i]
        table[channels * i + 5] = highest[i]
        table[channels * i + 6] = answer.data[i]
    }
    val row = FloatArray(width * channels)
    var to = 0
    for (y in 0 until image.height) {
        val above = rows.first[y] * row.size
        val below = rows.second[y] * row.size
        for (i in row.indices) {
            val upper = table[above + i]
            row[i] = upper + rows.fraction[y] * (table[below + i] - upper)
        }
        for (x in 0 until image.width) {
            val left = channels * columns.first[x]
            val right = channels * columns.second[x]
            val along = columns.fraction[x]
            var value = between(row, left + 6, right + 6, along)
            coarse.data[to] = value
            if (row[left + 5] - row[left + 4] >= STILL || row[right + 5] - row[right + 4] >= STILL) {
                val red = between(row, left, right, along) * image.data[3 * to]
                val green = between(row, left + 1, right + 1, along) * image.data[3 * to + 1]
                val blue = between(row, left + 2, right + 2, along) * image.data[3 * to + 2]
                val fitted = between(row, left + 3, right + 3, along) + (red + green + blue) / 255
                val low = between(row, left + 4, right + 4, along)
                val high = between(row, left + 5, right + 5, along)
                value = max(low, min(high, fitted))
            }
            refined.data[to++] = value
        }
    }
    return Pair(refined, coarse)
}

private fun between(row: FloatArray, left: Int, right: Int, along: Float) =
    row[left] + along * (row[right] - row[left])

/** Thin spikes taken out of the mask: postprocess.without_spikes. */
private fun withoutSpikes(refined: Picture, coarse: Picture): Picture {
    val radius = max(1, round(SPIKE * max(refined.width, refined.height)).toInt())
    // OpenCV's elliptic structuring element: how far it reaches to both sides, row by row.
    val reaches = IntArray(radius + 1) { v -> round(sqrt((radius * radius - v * v).toDouble())).toInt() }
    val eroded = Picture(refined.width, refined.height, 1)
    eroded.data.fill(UNKNOWN)
    val result = Picture(refined.width, refined.height, 1, refined.data.copyOf())
    var i = 0
    for (y in 0 until refined.height) {
        for (x in 0 until refined.width) {
            // The fit makes a spike only where it raises the probability.
            if (refined.data[i] > max(THRESHOLD, coarse.data[i] + STILL)) {
                val limit = max(THRESHOLD, max(coarse.data[i], openedAt(x, y, refined, eroded, reaches)))
                result.data[i] = min(refined.data[i], limit)
            }
            i++
        }
    }
    return result
}

private const val UNKNOWN = 2f // no probability: the minimum is computed where it is needed

/** The greatest of the least values around each pixel around (x, y). */
private fun openedAt(x: Int, y: Int, source: Picture, eroded: Picture, reaches: IntArray): Float {
    var opened = 0f
    for (v in max(0, y - reaches[0])..min(source.height - 1, y + reaches[0])) {
        val reach = reaches[abs(v - y)]
        for (u in max(0, x - reach)..min(source.width - 1, x + reach)) {
            val near = v * source.width + u
            if (eroded.data[near] == UNKNOWN) eroded.data[near] = minAround(u, v, source, reaches)
            opened = max(opened, eroded.data[near])
        }
    }
    return opened
}

private fun minAround(x: Int, y: Int, source: Picture, reaches: IntArray): Float {
    var least = 1f
    for (v in max(0, y - reaches[0])..min(source.height - 1, y + reaches[0])) {
        val reach = reaches[abs(v - y)]
        for (u in max(0, x - reach)..min(source.width - 1, x + reach)) {
            least = min(least, source.data[v * source.width + u])
        }
    }
    return least
}

/** Remove small regions and fill small holes, in place: postprocess.without_specks. */
private fun withoutSpecks(refined: Picture, coarse: Picture) {
    val runs = Runs(refined.data.size)
    dropSmall(refined, coarse, runs, CLEAR, true)
    dropSmall(refined, coarse, runs, THRESHOLD, true)
    dropSmall(refined, coarse, runs, THRESHOLD, false)
}

/** Small regions above the level (or not above it) without the network's support get the level. */
private fun dropSmall(refined: Picture, coarse: Picture, runs: Runs, level: Float, above: Boolean) {
    runs.find(refined, level, above)
    val maxArea = SPECK * refined.data.size
    val areas = IntArray(runs.count)
    val sums = DoubleArray(runs.count)
    for (run in 0 until runs.count) areas[runs.rootOf(run)] += runs.ends[run] - runs.starts[run]
    for (run in 0 until runs.count) {
        val root = runs.rootOf(run)
        if (areas[root] >= maxArea) continue
        for (i in runs.starts[run] until runs.ends[run]) sums[root] += coarse.data[i].toDouble()
    }
    for (run in 0 until runs.count) {
        val root = runs.rootOf(run)
        if (areas[root] >= maxArea) continue
        val support = sums[root] / areas[root] - THRESHOLD
        if ((if (above) support else -support) >= SUPPORT) continue
        refined.data.fill(if (above) level else level.nextUp(), runs.starts[run], runs.ends[run])
    }
}

/** Runs of pixels above a level (or not above it) in a row; those of a region have the same root. */
private class Runs(pixels: Int) {
    val starts = IntArray(pixels)
    val ends = IntArray(pixels) // the index after the last
    val parents = IntArray(pixels)
    var count = 0

    fun find(picture: Picture, level: Float, above: Boolean) {
        count = 0
        var row = 0 // first run of this row
        for (y in 0 until picture.height) {
            var upper = row // first run of the row above that may touch the next run
            row = count
            val to = (y + 1) * picture.width
            var i = to - picture.width
            while (true) {
                while (i < to && (picture.data[i] > level) != above) i++
                if (i == to) break
                val start = i
                while (i < to && (picture.data[i] > level) == above) i++
                starts[count] = start
                ends[count] = i
                parents[count] = count
                // The regions are 8-connected: the corners of two runs may touch.
                while (upper < row && ends[upper] < start - picture.width) upper++
                var k = upper
                while (k < row && starts[k] <= i - picture.width) parents[rootOf(k++)] = rootOf(count)
                count++
            }
        }
    }

    fun rootOf(run: Int): Int {
        var root = run
        while (parents[root] != root) {
            parents[root] = parents[parents[root]] // a shorter way for the next call
            root = parents[root]
        }
        return root
    }
}

/** The lowest and the highest value of the 3x3 pixels around each. */
private fun extremes(source: Picture): Pair<FloatArray, FloatArray> {
    val (width, height) = Pair(source.width, source.height)
    val lowest = FloatArray(source.data.size)
    val highest = FloatArray(source.data.size)
    for (y in 0 until height) {
        for (x in 0 until width) {
            var low = Float.MAX_VALUE
            var high = -Float.MAX_VALUE
            for (v in max(0, y - 1)..min(height - 1, y + 1)) {
                for (u in max(0, x - 1)..min(width - 1, x + 1)) {
                    low = min(low, source.data[v * width + u])
                    high = max(high, source.data[v * width + u])
                }
            }
            lowest[y * width + x] = low
            highest[y * width + x] = high
        }
    }
    return Pair(lowest, highest)
}

private const val MOMENTS = 13 // r g b p, rp gp bp, rr rg rb gg gb bb

/** Slopes of red, green and blue (0..1) and the offset: the linear fit of a guided filter. */
private fun colorFit(guide: Picture, answer: Picture): Picture {
    val (width, height) = Pair(answer.width, answer.height)
    val moments = Picture(width, height, MOMENTS)
    for (i in answer.data.indices) {
        val r = guide.data[3 * i] / 255
        val g = guide.data[3 * i + 1] / 255
        val b = guide.data[3 * i + 2] / 255
        val p = answer.data[i]
        floatArrayOf(r, g, b, p, r * p, g * p, b * p, r * r, r * g, r * b, g * g, g * b, b * b)
            .copyInto(moments.data, MOMENTS * i)
    }
    val radius = max(1, round(GUIDE_RADIUS * max(width, height)).toInt())
    val means = boxMean(moments, radius).data
    val fit = Picture(width, height, 4)
    for (i in answer.data.indices) {
        // Doubles: these are differences of nearly equal numbers.
        fun mean(k: Int) = means[MOMENTS * i + k].toDouble()
        val (r, g, b) = Triple(mean(0), mean(1), mean(2))
        val p = mean(3)
        val (x, y, z) = Triple(mean(4) - r * p, mean(5) - g * p, mean(6) - b * p)
        val rr = mean(7) - r * r + GUIDE_EPSILON
        val rg = mean(8) - r * g
        val rb = mean(9) - r * b
        val gg = mean(10) - g * g + GUIDE_EPSILON
        val gb = mean(11) - g * b
        val bb = mean(12) - b * b + GUIDE_EPSILON
        // The symmetric 3x3 system is solved by its adjugate.
        val (ra, ga, ba) = Triple(gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg)
        val mixed = rg * rb - rr * gb
        val determinant = rr * ra + rg * ga + rb * ba
        val red = (ra * x + ga * y + ba * z) / determinant
        val green = (ga * x + (rr * bb - rb * rb) * y + mixed * z) / determinant
        val blue = (ba * x + mixed * y + (rr * gg - rg * rg) * z) / determinant
        fit.data[4 * i] = red.toFloat()
        fit.data[4 * i + 1] = green.toFloat()
        fit.data[4 * i + 2] = blue.toFloat()
        fit.data[4 * i + 3] = (p - red * r - green * g - blue * b).toFloat()
    }
    return boxMean(fit, radius)
}

/** Opacity of the person, 0..1. */
fun matte(probability: Float) = ramp(probability, CLEAR, SOLID)

/**
 * The sharp person in front of a blurred background, without the person's colours in the blur.
 *
 * @param image RGB, 0..255
 * @param probability one channel, 0..1, of the same size
 */
fun blur(image: Picture, probability: Picture): Picture {
    val (width, height) = limitedSize(image, BLUR_SIGMA / BLUR)
    val small = interpolate(image, width, height)
    val person = interpolate(probability, width, height)
    val weighted = Picture(width, height, 4) // the fourth channel is the sum of the weights
    for (i in person.data.indices) {
        val weight = 1 - matte(person.data[i]) + 1e-4f // the plain mean where every weight is 0
        for (c in 0 until 3) weighted.data[4 * i + c] = weight * small.data[3 * i + c]
        weighted.data[4 * i + 3] = weight
    }
    // Three box means approximate a Gaussian; a box mean of radius r has the variance r (r + 1) / 3.
    val sigma = BLUR * max(width, height)
    val radius = max(1, round(sqrt(sigma * sigma + 0.25) - 0.5).toInt())
    val mean = boxMean(boxMean(boxMean(weighted, radius), radius), radius).data
    for (i in person.data.indices) {
        for (c in 0 until 3) small.data[3 * i + c] = mean[4 * i + c] / mean[4 * i + 3]
    }
    val result = interpolate(small, image.width, image.height)
    for (i in probability.data.indices) {
        val alpha = matte(probability.data[i])
        for (k in 3 * i until 3 * i + 3) {
            result.data[k] += alpha * (image.data[k] - result.data[k])
        }
    }
    return result
}
