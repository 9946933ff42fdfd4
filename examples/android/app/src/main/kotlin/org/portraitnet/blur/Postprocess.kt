// What a camera adds to the network's answer, as apps/web does it: pixels.js (guided upsampling),
// smoothing.js (over time) and effects.js (blur). Plain Kotlin: tests/test_mobile_examples.py
// compiles this file and compares it with the JavaScript, where there is a Kotlin compiler.

package org.portraitnet.blur

import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.roundToInt
import kotlin.math.sqrt

const val FLOOR = 0.1f // these five: apps/video/smoothing.py
const val NOISE = 2f
const val CHANGED = 8f
const val DOUBT = 0.25f
const val MOVED = 0.75f
const val GUIDE_SIDE = 112 // pixels; these three: portraitnet/postprocess.py
const val GUIDE_RADIUS = 0.025
const val GUIDE_EPSILON = 1.25e-3f
const val FLAT = 0.05f // where the answer changes less, it is only interpolated
const val CLEAR = 0.33f // background up to CLEAR, person from SOLID on: postprocess.py
const val SOLID = 0.67f
const val BLUR_SIGMA = 6.0 // pixels, sigma at which a wide blur is computed: portraitnet/effects.py
const val BLUR = 0.02 // sigma, as a fraction of the image's longer side

/** Rows from the top, channels interleaved: RGB 0..255, or one channel 0..1. */
class Picture(
    val width: Int,
    val height: Int,
    val channels: Int,
    val data: FloatArray = FloatArray(width * height * channels),
)

/** Width and height after shrinking to at most `side` pixels on the longer side. */
fun limitedSize(image: Picture, side: Double): Pair<Int, Int> {
    val ratio = min(1.0, side / max(image.width, image.height))
    return Pair(max(1, (image.width * ratio).roundToInt()), max(1, (image.height * ratio).roundToInt()))
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
    val (width, height) = limitedSize(image, GUIDE_SIDE.toDouble())
    val answer = interpolate(probability, width, height)
    for (i in answer.data.indices) {
        val (p, q) = Pair(answer.data[i], 1 - answer.data[i])
        answer.data[i] = p * p / (p * p + q * q)
    }
    val small = interpolate(guide, width, height)
    for (i in small.data.indices) small.data[i] = (small.data[i] + 0.5f).toInt().toFloat()
    val fit = colorFit(small, answer).data
    val (lowest, highest) = extremes(answer)
    val spread = Picture(width, height, 1, FloatArray(highest.size) { highest[it] - lowest[it] })
    val changes = extremes(spread).second

    val result = Picture(image.width, image.height, 1)
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
    for (y in 0 until image.height) {
        val above = rows.first[y] * width
        val below = rows.second[y] * width
        for (i in row.indices) {
            val upper = table[above * channels + i]
            row[i] = upper + rows.fraction[y] * (table[below * channels + i] - upper)
        }
        for (x in 0 until image.width) {
            val (first, second) = Pair(columns.first[x], columns.second[x])
            val along = columns.fraction[x]
            fun at(k: Int): Float {
                val left = row[channels * first + k]
                return left + along * (row[channels * second + k] - left)
            }
            val to = y * image.width + x
            val isFlat = changes[above + first] <= FLAT && changes[above + second] <= FLAT &&
                changes[below + first] <= FLAT && changes[below + second] <= FLAT
            if (isFlat) {
                result.data[to] = at(6)
            } else {
                val red = image.data[3 * to]
                val green = image.data[3 * to + 1]
                val blue = image.data[3 * to + 2]
                val value = at(3) + (at(0) * red + at(1) * green + at(2) * blue) / 255
                result.data[to] = max(at(4), min(at(5), value))
            }
        }
    }
    return result
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
    val radius = max(1, (GUIDE_RADIUS * max(width, height)).roundToInt())
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
    val radius = max(1, (sqrt(sigma * sigma + 0.25) - 0.5).roundToInt())
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
