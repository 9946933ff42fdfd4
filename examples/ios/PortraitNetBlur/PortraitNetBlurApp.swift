import SwiftUI

@main
struct PortraitNetBlurApp: App {
    @StateObject private var camera = Camera()

    var body: some Scene {
        WindowGroup {
            ZStack {
                Color.black
                if let frame = camera.frame {
                    Image(decorative: frame, scale: 1).resizable().scaledToFill()
                }
                if let message = camera.message {
                    Text(message).foregroundColor(.white).padding()
                }
            }
            .ignoresSafeArea()
            .onTapGesture { camera.turn() }
            .onAppear { camera.start() }
        }
    }
}
