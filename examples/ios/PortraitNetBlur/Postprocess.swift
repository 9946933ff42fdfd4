// What a camera adds to the network's answer, as apps/web does it: pixels.js (guided upsampling),
// smoothing.js (over time) and effects.js (blur). The same functions in the same order as
// ../../android/.../Postprocess.kt, which is compiled and compared with the JavaScript.

import Foundation

let FLOOR: Float = 0.1  // these five: apps/video/smoothing.py
let NOISE: Float = 2
let CHANGED: Float = 8
let DOUBT: Float = 0.25
let MOVED: Float = 0.75
let GUIDE_SIDE = 112  // pixels; these seven: portraitnet/postprocess.py
let GUIDE_RADIUS = 0.025
let GUIDE_EPSILON = 1.25e-3
let APPLY_SIDE = 800  // pixels
let SPIKE = 0.0025
let SPECK = 0.001
let SUPPORT = 0.3
let STILL: Float = 0.001953125  // 1 / 512: smaller differences are not worth the time
let CLEAR: Float = 0.33  // background up to CLEAR, person from SOLID on: postprocess.py
let SOLID: Float = 0.67
let THRESHOLD: Float = 0.5  // person above it: portraitnet/images.py
let BLUR_SIGMA = 6.0  // pixels, sigma at which a wide blur is computed: portraitnet/effects.py
let BLUR = 0.02  // sigma, as a fraction of the image's longer side

/// Rows from the top, channels interleaved: RGB 0...255, or one channel 0...1.
struct Picture {
    let width: Int
    let height: Int
    let channels: Int
    var data: [Float]

    init(width: Int, height: Int, channels: Int) {
        self.width = width
        self.height = height
        self.channels = channels
        data = [Float](repeating: 0, count: width * height * channels)
    }
}

/// Width and height after shrinking to at most `side` pixels on the longer side.
func limitedSize(_ image: Picture, _ side: Double) -> (Int, Int) {
    let ratio = min(1, side / Double(max(image.width, image.height)))
    func shrunk(_ length: Int) -> Int {
        max(1, Int((Double(length) * ratio).rounded(.toNearestOrEven)))
    }
    return (shrunk(image.width), shrunk(image.height))
}

/// For each of newLength pixels the two of `length` it lies between, and how near the second is.
struct Neighbours {
    var first: [Int] = []
    var second: [Int] = []
    var fraction: [Float] = []

    init(_ length: Int, _ newLength: Int) {
        for i in 0..<newLength {
            let place = (Double(i) + 0.5) * Double(length) / Double(newLength) - 0.5
            let at = min(Double(length - 1), max(0, place))
            first.append(Int(at))
            second.append(min(length - 1, Int(at) + 1))
            fraction.append(Float(at - at.rounded(.down)))
        }
    }
}

/// Bilinear, in both directions.
func interpolate(_ source: Picture, _ width: Int, _ height: Int) -> Picture {
    var result = Picture(width: width, height: height, channels: source.channels)
    let columns = Neighbours(source.width, width)
    let rows = Neighbours(source.height, height)
    let c = source.channels
    var narrow = [Float](repeating: 0, count: source.width * c)
    var to = 0
    for y in 0..<height {
        let above = rows.first[y] * narrow.count
        let below = rows.second[y] * narrow.count
        for i in narrow.indices {
            let upper = source.data[above + i]
            narrow[i] = upper + rows.fraction[y] * (source.data[below + i] - upper)
        }
        for x in 0..<width {
            for k in 0..<c {
                let left = narrow[c * columns.first[x] + k]
                let right = narrow[c * columns.second[x] + k]
                result.data[to] = left + columns.fraction[x] * (right - left)
                to += 1
            }
        }
    }
    return result
}

private func reflect(_ index: Int, _ length: Int) -> Int {
    var i = index
    while i < 0 || i >= length { i = i < 0 ? -1 - i : 2 * length - 1 - i }
    return i
}

/// Mean over a square window of side 2 * radius + 1, mirrored at the border; any channels.
func boxMean(_ source: Picture, _ radius: Int) -> Picture {
    let (width, height, c) = (source.width, source.height, source.channels)
    var passed = source.data
    var result = source
    for y in 0..<height { slide(source.data, &passed, y * width * c, c, width, c, radius) }
    for x in 0..<width { slide(passed, &result.data, x * c, width * c, height, c, radius) }
    return result
}

/// Running mean along one line of pixels: the first at `start`, the next `step` numbers on.
private func slide(
    _ source: [Float], _ result: inout [Float], _ start: Int, _ step: Int, _ length: Int,
    _ channels: Int, _ radius: Int
) {
    let weight = 1 / Double(2 * radius + 1)
    for k in start..<start + channels {
        var sum = 0.0
        for i in -radius...radius { sum += Double(source[k + step * reflect(i, length)]) }
        for i in 0..<length {
            result[k + step * i] = Float(sum * weight)
            sum += Double(source[k + step * reflect(i + radius + 1, length)])
            sum -= Double(source[k + step * reflect(i - radius, length)])
        }
    }
}

/// Brightness of an RGB picture, 8 bits, as OpenCV rounds it.
func luma(_ image: Picture) -> Picture {
    var result = Picture(width: image.width, height: image.height, channels: 1)
    for i in result.data.indices {
        let (red, green) = (Int(image.data[3 * i]), Int(image.data[3 * i + 1]))
        let blue = Int(image.data[3 * i + 2])
        result.data[i] = Float((4899 * red + 9617 * green + 1868 * blue + 8192) >> 14)
    }
    return result
}

private func ramp(_ value: Float, _ low: Float, _ high: Float) -> Float {
    min(1, max(0, (value - low) / (high - low)))
}

/// Mixes each frame's probability with the previous result, which counts for 1 - FLOOR, but less
/// where the frame or the mask has changed: so a moving person leaves no trail.
final class Smoother {
    private var last: (luma: Picture, probability: Picture)?

    /// `input`, RGB, and `probability` are of the same size.
    func smooth(_ input: Picture, _ probability: Picture) -> Picture {
        let grey = boxMean(luma(input), 1)
        let mixed = mix(grey, probability)
        last = (grey, mixed)
        return mixed
    }

    private func mix(_ grey: Picture, _ probability: Picture) -> Picture {
        guard let (oldGrey, old) = last, old.width == grey.width, old.height == grey.height
        else { return probability }
        var changes = Picture(width: grey.width, height: grey.height, channels: 2)
        for i in old.data.indices {  // of luma and of probability
            changes.data[2 * i] = abs(grey.data[i] - oldGrey.data[i])
            changes.data[2 * i + 1] = probability.data[i] - old.data[i]
        }
        let around = boxMean(changes, 2).data
        var mixed = old
        for i in old.data.indices {
            let change = ramp(around[2 * i], NOISE, CHANGED)
            let move = ramp(abs(around[2 * i + 1]), DOUBT, MOVED)
            let weight = FLOOR + (1 - FLOOR) * max(change, move)
            mixed.data[i] = old.data[i] + weight * changes.data[2 * i + 1]
        }
        return mixed
    }
}

/// A probability brought to the image's size, its edges following the image's.
///
/// - Parameters:
///   - probability: one channel, 0...1, the network's answer
///   - image: RGB, of the size that the result has
///   - guide: the image again, small: the network's input
func guidedUpsample(_ probability: Picture, _ image: Picture, _ guide: Picture) -> Picture {
    let (width, height) = limitedSize(image, Double(APPLY_SIDE))
    let isSmall = width == image.width && height == image.height
    let applied = isSmall ? image : rounded(interpolate(image, width, height))
    let (fitted, coarse) = applyFit(probability, applied, guide)
    var refined = withoutSpikes(fitted, coarse)
    withoutSpecks(&refined, coarse)
    return isSmall ? refined : interpolate(refined, image.width, image.height)
}

private func rounded(_ source: Picture) -> Picture {
    var result = source
    for i in result.data.indices { result.data[i] = (result.data[i] + 0.5).rounded(.down) }
    return result
}

/// The probability at the image's size: with the fit to its colours, and only interpolated.
private func applyFit(
    _ probability: Picture, _ image: Picture, _ guide: Picture
) -> (refined: Picture, coarse: Picture) {
    let (width, height) = limitedSize(image, Double(GUIDE_SIDE))
    var answer = interpolate(probability, width, height)
    for i in answer.data.indices {
        let p = answer.data[i]
        let q = 1 - p
        answer.data[i] = p * p / (p * p + q * q)
    }
    let fit = colorFit(rounded(interpolate(guide, width, height)), answer).data
    let (lowest, highest) = extremes(answer)

    var refined = Picture(width: image.width, height: image.height, channels: 1)
    var coarse = Picture(width: image.width, height: image.height, channels: 1)
    let columns = Neighbours(width, image.width)
    let rows = Neighbours(height, image.height)
    let channels = 7  // of a guide's pixel: slopes and offset, lowest, highest, the answer itself
    var table = [Float](repeating: 0, count: width * height * channels)
    for i in answer.data.indices {
        for k in 0..<4 { table[channels * i + k] = fit[4 * i + k] }
        table[channels * i + 4] = lowest[i]
        table[channels * i + 5] = highest[i]
        table[channels * i + 6] = answer.data[i]
    }
    var row = [Float](repeating: 0, count: width * channels)
    var to = 0
    for y in 0..<image.height {
        let above = rows.first[y] * row.count
        let below = rows.second[y] * row.count
        for i in row.indices {
            let upper = table[above + i]
            row[i] = upper + rows.fraction[y] * (table[below + i] - upper)
        }
        for x in 0..<image.width {
            let left = channels * columns.first[x]
            let right = channels * columns.second[x]
            let along = columns.fraction[x]
            var value = between(row, left + 6, right + 6, along)
            coarse.data[to] = value
            if row[left + 5] - row[left + 4] >= STILL || row[right + 5] - row[right + 4] >= STILL {
                let red = between(row, left, right, along) * image.data[3 * to]
                let green = between(row, left + 1, right + 1, along) * image.data[3 * to + 1]
                let blue = between(row, left + 2, right + 2, along) * image.data[3 * to + 2]
                let fitted = between(row, left + 3, right + 3, along) + (red + green + blue) / 255
                let low = between(row, left + 4, right + 4, along)
                let high = between(row, left + 5, right + 5, along)
                value = max(low, min(high, fitted))
            }
            refined.data[to] = value
            to += 1
        }
    }
    return (refined, coarse)
}

private func between(_ row: [Float], _ left: Int, _ right: Int, _ along: Float) -> Float {
    row[left] + along * (row[right] - row[left])
}

/// Thin spikes taken out of the mask: postprocess.without_spikes.
private func withoutSpikes(_ refined: Picture, _ coarse: Picture) -> Picture {
    let side = Double(max(refined.width, refined.height))
    let radius = max(1, Int((SPIKE * side).rounded(.toNearestOrEven)))
    // OpenCV's elliptic structuring element: how far it reaches to both sides, row by row.
    let reaches = (0...radius).map { v in
        Int(Double(radius * radius - v * v).squareRoot().rounded(.toNearestOrEven))
    }
    var eroded = [Float](repeating: UNKNOWN, count: refined.data.count)
    var result = refined
    var i = 0
    for y in 0..<refined.height {
        for x in 0..<refined.width {
            // The fit makes a spike only where it raises the probability.
            if refined.data[i] > max(THRESHOLD, coarse.data[i] + STILL) {
                let opened = openedAt(x, y, refined, &eroded, reaches)
                let limit = max(THRESHOLD, max(coarse.data[i], opened))
                result.data[i] = min(refined.data[i], limit)
            }
            i += 1
        }
    }
    return result
}

private let UNKNOWN: Float = 2  // no probability: the minimum is computed where it is needed

/// The greatest of the least values around each pixel around (x, y).
private func openedAt(
    _ x: Int, _ y: Int, _ source: Picture, _ eroded: inout [Float], _ reaches: [Int]
) -> Float {
    var opened: Float = 0
    for v in max(0, y - reaches[0])...min(source.height - 1, y + reaches[0]) {
        let reach = reaches[abs(v - y)]
        for u in max(0, x - reach)...min(source.width - 1, x + reach) {
            let near = v * source.width + u
            if eroded[near] == UNKNOWN { eroded[near] = minAround(u, v, source, reaches) }
            opened = max(opened, eroded[near])
        }
    }
    return opened
}

private func minAround(_ x: Int, _ y: Int, _ source: Picture, _ reaches: [Int]) -> Float {
    var least: Float = 1
    for v in max(0, y - reaches[0])...min(source.height - 1, y + reaches[0]) {
        let reach = reaches[abs(v - y)]
        for u in max(0, x - reach)...min(source.width - 1, x + reach) {
            least = min(least, source.data[v * source.width + u])
        }
    }
    return least
}

/// Remove small regions and fill small holes, in place: postprocess.without_specks.
private func withoutSpecks(_ refined: inout Picture, _ coarse: Picture) {
    var runs = Runs(refined.data.count)
    dropSmall(&refined, coarse, &runs, CLEAR, true)
    dropSmall(&refined, coarse, &runs, THRESHOLD, true)
    dropSmall(&refined, coarse, &runs, THRESHOLD, false)
}

/// Small regions above the level (or not above it) without the network's support get the level.
private func dropSmall(
    _ refined: inout Picture, _ coarse: Picture, _ runs: inout Runs, _ level: Float, _ above: Bool
) {
    runs.find(refined, level, above)
    let maxArea = SPECK * Double(refined.data.count)
    var areas = [Int](repeating: 0, count: runs.count)
    var sums = [Double](repeating: 0, count: runs.count)
    for run in 0..<runs.count { areas[runs.rootOf(run)] += runs.ends[run] - runs.starts[run] }
    for run in 0..<runs.count {
        let root = runs.rootOf(run)
        if Double(areas[root]) >= maxArea { continue }
        for i in runs.starts[run]..<runs.ends[run] { sums[root] += Double(coarse.data[i]) }
    }
    for run in 0..<runs.count {
        let root = runs.rootOf(run)
        if Double(areas[root]) >= maxArea { continue }
        let support = sums[root] / Double(areas[root]) - Double(THRESHOLD)
        if (above ? support : -support) >= SUPPORT { continue }
        let value = above ? level : level.nextUp
        for i in runs.starts[run]..<runs.ends[run] { refined.data[i] = value }
    }
}

/// Runs of pixels above a level (or not above it) in a row; those of a region have the same root.
private struct Runs {
    var starts: [Int]
    var ends: [Int]  // the index after the last
    var parents: [Int]
    var count = 0

    init(_ pixels: Int) {
        starts = [Int](repeating: 0, count: pixels)
        ends = starts
        parents = starts
    }

    mutating func find(_ picture: Picture, _ level: Float, _ above: Bool) {
        count = 0
        var row = 0  // first run of this row
        for y in 0..<picture.height {
            var upper = row  // first run of the row above that may touch the next run
            row = count
            let to = (y + 1) * picture.width
            var i = to - picture.width
            while true {
                while i < to && (picture.data[i] > level) != above { i += 1 }
                if i == to { break }
                let start = i
                while i < to && (picture.data[i] > level) == above { i += 1 }
                starts[count] = start
                ends[count] = i
                parents[count] = count
                // The regions are 8-connected: the corners of two runs may touch.
                while upper < row && ends[upper] < start - picture.width { upper += 1 }
                var k = upper
                while k < row && starts[k] <= i - picture.width {
                    let root = rootOf(k)
                    parents[root] = rootOf(count)
                    k += 1
                }
                count += 1
            }
        }
    }

    mutating func rootOf(_ run: Int) -> Int {
        var root = run
        while parents[root] != root {
            parents[root] = parents[parents[root]]  // a shorter way for the next call
            root = parents[root]
        }
        return root
    }
}

/// The lowest and the highest value of the 3x3 pixels around each.
private func extremes(_ source: Picture) -> (lowest: [Float], highest: [Float]) {
    let (width, height) = (source.width, source.height)
    var (lowest, highest) = (source.data, source.data)
    for y in 0..<height {
        for x in 0..<width {
            for v in max(0, y - 1)...min(height - 1, y + 1) {
                for u in max(0, x - 1)...min(width - 1, x + 1) {
                    let value = source.data[v * width + u]
                    lowest[y * width + x] = min(lowest[y * width + x], value)
                    highest[y * width + x] = max(highest[y * width + x], value)
                }
            }
        }
    }
    return (lowest, highest)
}

private let moments = 13  // r g b p, rp gp bp, rr rg rb gg gb bb

/// Slopes of red, green and blue (0...1) and the offset: the linear fit of a guided filter.
private func colorFit(_ guide: Picture, _ answer: Picture) -> Picture {
    let (width, height) = (answer.width, answer.height)
    var products = Picture(width: width, height: height, channels: moments)
    for i in answer.data.indices {
        let r = guide.data[3 * i] / 255
        let g = guide.data[3 * i + 1] / 255
        let b = guide.data[3 * i + 2] / 255
        let p = answer.data[i]
        let values = [r, g, b, p, r * p, g * p, b * p, r * r, r * g, r * b, g * g, g * b, b * b]
        for k in 0..<moments { products.data[moments * i + k] = values[k] }
    }
    let side = Double(max(width, height))
    let radius = max(1, Int((GUIDE_RADIUS * side).rounded(.toNearestOrEven)))
    let means = boxMean(products, radius).data
    var fit = Picture(width: width, height: height, channels: 4)
    for i in answer.data.indices {
        // Doubles: these are differences of nearly equal numbers.
        func mean(_ k: Int) -> Double { Double(means[moments * i + k]) }
        let (r, g, b, p) = (mean(0), mean(1), mean(2), mean(3))
        let (x, y, z) = (mean(4) - r * p, mean(5) - g * p, mean(6) - b * p)
        let rr = mean(7) - r * r + GUIDE_EPSILON
        let rg = mean(8) - r * g
        let rb = mean(9) - r * b
        let gg = mean(10) - g * g + GUIDE_EPSILON
        let gb = mean(11) - g * b
        let bb = mean(12) - b * b + GUIDE_EPSILON
        // The symmetric 3x3 system is solved by its adjugate.
        let (ra, ga, ba) = (gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg)
        let mixed = rg * rb - rr * gb
        let determinant = rr * ra + rg * ga + rb * ba
        let red = (ra * x + ga * y + ba * z) / determinant
        let green = (ga * x + (rr * bb - rb * rb) * y + mixed * z) / determinant
        let blue = (ba * x + mixed * y + (rr * gg - rg * rg) * z) / determinant
        fit.data[4 * i] = Float(red)
        fit.data[4 * i + 1] = Float(green)
        fit.data[4 * i + 2] = Float(blue)
        fit.data[4 * i + 3] = Float(p - red * r - green * g - blue * b)
    }
    return boxMean(fit, radius)
}

/// Opacity of the person, 0...1.
func matte(_ probability: Float) -> Float { ramp(probability, CLEAR, SOLID) }

/// The sharp person in front of a blurred background, without the person's colours in the blur.
///
/// - Parameters:
///   - image: RGB, 0...255
///   - probability: one channel, 0...1, of the same size
func blur(_ image: Picture, _ probability: Picture) -> Picture {
    let (width, height) = limitedSize(image, BLUR_SIGMA / BLUR)
    var small = interpolate(image, width, height)
    let person = interpolate(probability, width, height)
    var weighted = Picture(width: width, height: height, channels: 4)
    for i in person.data.indices {  // the fourth channel is the sum of the weights
        let weight = 1 - matte(person.data[i]) + 1e-4  // the plain mean where every weight is 0
        for c in 0..<3 { weighted.data[4 * i + c] = weight * small.data[3 * i + c] }
        weighted.data[4 * i + 3] = weight
    }
    // Three box means approximate a Gaussian; a box mean of radius r has the variance r (r + 1) / 3.
    let sigma = BLUR * Double(max(width, height))
    let wanted = (sigma * sigma + 0.25).squareRoot() - 0.5
    let radius = max(1, Int(wanted.rounded(.toNearestOrEven)))
    let mean = boxMean(boxMean(boxMean(weighted, radius), radius), radius).data
    for i in person.data.indices {
        for c in 0..<3 { small.data[3 * i + c] = mean[4 * i + c] / mean[4 * i + 3] }
    }
    var result = interpolate(small, image.width, image.height)
    for i in probability.data.indices {
        let alpha = matte(probability.data[i])
        for k in 3 * i..<3 * i + 3 {
            result.data[k] += alpha * (image.data[k] - result.data[k])
        }
    }
    return result
}
