package org.portraitnet.blur

import android.Manifest
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.os.Bundle
import android.util.Size
import android.view.WindowManager
import android.widget.ImageView
import android.widget.Toast
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.core.resolutionselector.ResolutionStrategy
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.core.content.ContextCompat
import java.util.concurrent.Executors

/** The front camera with a blurred background; a tap switches the camera. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor() // the network and all that follows
    private lateinit var screen: ImageView
    private lateinit var network: PortraitNet
    private var smoother = Smoother()
    private var camera = CameraSelector.DEFAULT_FRONT_CAMERA

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        network = PortraitNet(assets)
        screen = ImageView(this).apply { scaleType = ImageView.ScaleType.CENTER_CROP }
        screen.setOnClickListener {
            val isFront = camera == CameraSelector.DEFAULT_FRONT_CAMERA
            camera = if (isFront) CameraSelector.DEFAULT_BACK_CAMERA else CameraSelector.DEFAULT_FRONT_CAMERA
            start()
        }
        setContentView(screen)
        val permission = Manifest.permission.CAMERA
        if (ContextCompat.checkSelfPermission(this, permission) == PackageManager.PERMISSION_GRANTED) {
            start()
        } else {
            registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
                if (granted) start()
                else Toast.makeText(this, "This app needs the camera.", Toast.LENGTH_LONG).show()
            }.launch(permission)
        }
    }

    private fun start() {
        val future = ProcessCameraProvider.getInstance(this)
        future.addListener({
            val strategy = ResolutionStrategy(
                Size(640, 480), ResolutionStrategy.FALLBACK_RULE_CLOSEST_LOWER_THEN_HIGHER
            )
            val analysis = ImageAnalysis.Builder()
                .setResolutionSelector(ResolutionSelector.Builder().setResolutionStrategy(strategy).build())
                .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .setOutputImageRotationEnabled(true)
                .build()
            analysis.setAnalyzer(worker, ::show)
            val provider = future.get()
            provider.unbindAll()
            provider.bindToLifecycle(this, camera, analysis)
            worker.execute { smoother = Smoother() } // no mask of the other camera counts
            screen.scaleX = if (camera == CameraSelector.DEFAULT_FRONT_CAMERA) -1f else 1f // a mirror
        }, ContextCompat.getMainExecutor(this))
    }

    /** One frame, on the worker's thread. */
    private fun show(frame: ImageProxy) {
        val bitmap = frame.use { it.toBitmap() }
        val small = Bitmap.createScaledBitmap(bitmap, INPUT_WIDTH, INPUT_HEIGHT, true)
        val image = pictureOf(bitmap)
        val input = pictureOf(small)
        val steady = smoother.smooth(input, network.probability(input))
        val blurred = bitmapOf(blur(image, guidedUpsample(steady, image, input)))
        runOnUiThread { screen.setImageBitmap(blurred) }
    }

    override fun onDestroy() {
        super.onDestroy()
        worker.execute { network.close() } // after the frame that may be under way
        worker.shutdown()
    }

    private fun pictureOf(bitmap: Bitmap): Picture {
        val pixels = IntArray(bitmap.width * bitmap.height)
        bitmap.getPixels(pixels, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        val picture = Picture(bitmap.width, bitmap.height, 3)
        for (i in pixels.indices) {
            picture.data[3 * i] = (pixels[i] shr 16 and 255).toFloat()
            picture.data[3 * i + 1] = (pixels[i] shr 8 and 255).toFloat()
            picture.data[3 * i + 2] = (pixels[i] and 255).toFloat()
        }
        return picture
    }

    private fun bitmapOf(picture: Picture): Bitmap {
        val data = picture.data
        val pixels = IntArray(picture.width * picture.height) { i ->
            val red = (data[3 * i] + 0.5f).toInt()
            val green = (data[3 * i + 1] + 0.5f).toInt()
            val blue = (data[3 * i + 2] + 0.5f).toInt()
            255 shl 24 or (red shl 16) or (green shl 8) or blue
        }
        return Bitmap.createBitmap(pixels, picture.width, picture.height, Bitmap.Config.ARGB_8888)
    }
}
