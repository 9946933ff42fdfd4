package org.portraitnet.blur

import android.content.res.AssetManager
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import org.tensorflow.lite.Interpreter

// These six stand in the file's metadata; tests/test_mobile_examples.py compares them.
const val MODEL_FILE = "portraitnet_lite_288x224.tflite"
const val INPUT_HEIGHT = 288 // pixels
const val INPUT_WIDTH = 224
val MEAN = floatArrayOf(103.94f, 116.78f, 123.68f) // of blue, green and red
const val SCALE = 0.017f
const val CHANNEL_ORDER = "BGR"

/** The network; call it from one thread at a time. */
class PortraitNet(assets: AssetManager, threads: Int = 2) : AutoCloseable {
    private val interpreter = Interpreter(map(assets), Interpreter.Options().setNumThreads(threads))
    private val batch = floats(3 * INPUT_HEIGHT * INPUT_WIDTH)
    private val answer = floats(INPUT_HEIGHT * INPUT_WIDTH)

    /**
     * Where the person is.
     *
     * @param image RGB, 0..255, of INPUT_WIDTH x INPUT_HEIGHT
     * @return one channel, 0..1, of the same size
     */
    fun probability(image: Picture): Picture {
        batch.rewind()
        for (pixel in 0 until image.width * image.height) {
            for (c in 0 until 3) {
                val value = image.data[3 * pixel + "RGB".indexOf(CHANNEL_ORDER[c])]
                batch.putFloat((value - MEAN[c]) * SCALE)
            }
        }
        batch.rewind()
        answer.rewind()
        interpreter.run(batch, answer)
        answer.rewind()
        val result = Picture(image.width, image.height, 1)
        answer.asFloatBuffer().get(result.data)
        return result
    }

    override fun close() = interpreter.close()

    private fun floats(count: Int) =
        ByteBuffer.allocateDirect(4 * count).order(ByteOrder.nativeOrder())

    private fun map(assets: AssetManager): ByteBuffer =
        assets.openFd(MODEL_FILE).use { file ->
            FileInputStream(file.fileDescriptor).channel.use {
                it.map(FileChannel.MapMode.READ_ONLY, file.startOffset, file.declaredLength)
            }
        }
}
