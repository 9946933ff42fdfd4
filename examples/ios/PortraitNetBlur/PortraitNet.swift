import CoreML
import CoreVideo
import Vision

// These stand in the package's metadata; tests/test_mobile_examples.py compares them. Core ML
// itself turns an image to CHANNEL_ORDER and to (pixel - MEAN) * SCALE.
let MODEL_NAME = "PortraitNet"
let OUTPUT = "probability"
let INPUT_HEIGHT = 288  // pixels
let INPUT_WIDTH = 224
let MEAN: [Float] = [103.94, 116.78, 123.68]  // of blue, green and red
let SCALE: Float = 0.017
let CHANNEL_ORDER = "BGR"

/// The network; call it from one thread at a time.
final class PortraitNet {
    struct Unreadable: Error {}

    private let request: VNCoreMLRequest

    init() throws {
        guard let url = Bundle.main.url(forResource: MODEL_NAME, withExtension: "mlmodelc") else {
            throw Unreadable()
        }
        let configuration = MLModelConfiguration()
        configuration.computeUnits = .all
        let model = try MLModel(contentsOf: url, configuration: configuration)
        request = VNCoreMLRequest(model: try VNCoreMLModel(for: model))
        request.imageCropAndScaleOption = .scaleFill
    }

    /// Where the person is: one channel, 0...1, INPUT_WIDTH x INPUT_HEIGHT.
    func probability(_ frame: CVPixelBuffer) throws -> Picture {
        try VNImageRequestHandler(cvPixelBuffer: frame).perform([request])
        guard
            let found = request.results?.first as? VNCoreMLFeatureValueObservation,
            let answer = found.featureValue.multiArrayValue,
            answer.count == INPUT_WIDTH * INPUT_HEIGHT
        else { throw Unreadable() }
        var result = Picture(width: INPUT_WIDTH, height: INPUT_HEIGHT, channels: 1)
        for y in 0..<INPUT_HEIGHT {
            for x in 0..<INPUT_WIDTH {
                let index = [0, y as NSNumber, x as NSNumber]
                result.data[y * INPUT_WIDTH + x] = answer[index].floatValue
            }
        }
        return result
    }
}
