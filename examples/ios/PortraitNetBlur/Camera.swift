import AVFoundation
import CoreGraphics
import UIKit

/// The front camera with a blurred background; `turn` switches the camera.
final class Camera: NSObject, ObservableObject, AVCaptureVideoDataOutputSampleBufferDelegate {
    @Published private(set) var frame: CGImage?
    @Published private(set) var message: String?

    private let session = AVCaptureSession()
    private let worker = DispatchQueue(label: "frames")  // the network and all that follows
    private var network: PortraitNet?
    private var smoother = Smoother()
    private var position = AVCaptureDevice.Position.front

    func start() {
        UIApplication.shared.isIdleTimerDisabled = true
        AVCaptureDevice.requestAccess(for: .video) { granted in
            if granted {
                self.worker.async { self.open() }
            } else {
                self.say("This app needs the camera: allow it in Settings.")
            }
        }
    }

    func turn() {
        worker.async {
            self.position = self.position == .front ? .back : .front
            self.open()
        }
    }

    private func say(_ text: String) {
        DispatchQueue.main.async { self.message = text }
    }

    /// On the worker's queue.
    private func open() {
        do {
            network = try network ?? PortraitNet()
        } catch {
            return say("\(MODEL_NAME).mlpackage is not part of the app: see README.md.")
        }
        let type = AVCaptureDevice.DeviceType.builtInWideAngleCamera
        guard
            let device = AVCaptureDevice.default(type, for: .video, position: position),
            let input = try? AVCaptureDeviceInput(device: device)
        else { return say("There is no such camera.") }
        session.beginConfiguration()
        session.inputs.forEach(session.removeInput)
        session.outputs.forEach(session.removeOutput)
        session.sessionPreset = .vga640x480
        let output = AVCaptureVideoDataOutput()
        output.videoSettings = [
            kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA
        ]
        output.alwaysDiscardsLateVideoFrames = true
        output.setSampleBufferDelegate(self, queue: worker)
        session.addInput(input)
        session.addOutput(output)
        if let connection = output.connection(with: .video) {
            connection.videoOrientation = .portrait
            connection.isVideoMirrored = position == .front
        }
        session.commitConfiguration()
        smoother = Smoother()  // no mask of the other camera counts
        if !session.isRunning { session.startRunning() }
    }

    /// One frame, on the worker's queue.
    func captureOutput(
        _ output: AVCaptureOutput, didOutput sample: CMSampleBuffer, from: AVCaptureConnection
    ) {
        guard
            let buffer = CMSampleBufferGetImageBuffer(sample),
            let answer = try? network?.probability(buffer)
        else { return }
        let image = picture(of: buffer)
        let input = interpolate(image, INPUT_WIDTH, INPUT_HEIGHT)
        let steady = smoother.smooth(input, answer)
        let blurred = cgImage(of: blur(image, guidedUpsample(steady, image, input)))
        DispatchQueue.main.async { self.frame = blurred }
    }

    private func picture(of buffer: CVPixelBuffer) -> Picture {
        CVPixelBufferLockBaseAddress(buffer, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        let (width, height) = (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer))
        let length = CVPixelBufferGetBytesPerRow(buffer)
        let bytes = CVPixelBufferGetBaseAddress(buffer)!.assumingMemoryBound(to: UInt8.self)
        var result = Picture(width: width, height: height, channels: 3)
        for y in 0..<height {
            for x in 0..<width {
                let (from, to) = (y * length + 4 * x, 3 * (y * width + x))
                result.data[to] = Float(bytes[from + 2])  // BGRA -> RGB
                result.data[to + 1] = Float(bytes[from + 1])
                result.data[to + 2] = Float(bytes[from])
            }
        }
        return result
    }

    private func cgImage(of picture: Picture) -> CGImage? {
        let bytes = picture.data.map { UInt8($0 + 0.5) }
        guard let provider = CGDataProvider(data: Data(bytes) as CFData) else { return nil }
        return CGImage(
            width: picture.width, height: picture.height, bitsPerComponent: 8, bitsPerPixel: 24,
            bytesPerRow: 3 * picture.width, space: CGColorSpaceCreateDeviceRGB(),
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider,
            decode: nil, shouldInterpolate: true, intent: .defaultIntent)
    }
}
