// The finished picture: background, shadow, outline and person, drawn on a canvas.

const SHADOW_BLUR = 0.045; // fractions of the frame's longer side
const SHADOW_DROP = 0.015;
const SHADOW_OPACITY = 0.7; // at full strength
const DIRECTIONS = 24; // in which the person is shifted to make its outline

/** The whole place of a layer that nobody has moved; x and y are fractions of the frame's sides. */
export const UNMOVED = { scale: 1, angle: 0, x: 0, y: 0 };
export const isUnmoved = ({ scale, angle, x, y }) => scale === 1 && !angle && !x && !y;

/**
 * The transformation from the photo's pixels to the frame's, [a, b, c, d, e, f] of a canvas.
 *
 * @param frame as frames.frameOf returns it
 * @param place { scale, angle in degrees, x, y }: around `pivot`, a point of the photo
 */
export function matrixOf(frame, place, pivot) {
  const cos = place.scale * Math.cos((place.angle * Math.PI) / 180);
  const sin = place.scale * Math.sin((place.angle * Math.PI) / 180);
  const [px, py] = [frame.scale * pivot.x + frame.x, frame.scale * pivot.y + frame.y];
  const x = px + place.x * frame.width + cos * (frame.x - px) - sin * (frame.y - py);
  const y = py + place.y * frame.height + sin * (frame.x - px) + cos * (frame.y - py);
  return [frame.scale * cos, frame.scale * sin, -frame.scale * sin, frame.scale * cos, x, y];
}

/** A picture scaled until it covers (width, height), enlarged and moved by `place` but never off. */
export function drawCovering(context, image, width, height, { scale, x, y }) {
  const ratio = scale * Math.max(width / image.width, height / image.height);
  const [w, h] = [image.width * ratio, image.height * ratio];
  const shift = (at, length, room) => Math.max(-room, Math.min(room, at * length)) - room;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, shift(x, width, (w - width) / 2), shift(y, height, (h - height) / 2), w, h);
}

/**
 * @param layers.content canvas of the photo's size: the person, or a whole picture
 * @param layers.matrix as `matrixOf` returns it
 * @param layers.background function of (context, width, height), or null
 * @param layers.shadow strength 0..1
 * @param layers.outline { width as a fraction of the frame's longer side, color }
 * @param layers.round whether the corners are left out
 * @param zoom size of the canvas, as a fraction of the frame
 */
export function compose(canvas, frame, layers, zoom = 1) {
  const size = [Math.max(1, Math.round(frame.width * zoom)), Math.max(1, Math.round(frame.height * zoom))];
  const [width, height] = size;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  layers.background?.(context, width, height);
  const side = Math.max(width, height);
  const matrix = layers.matrix.map((value) => value * zoom);
  const outline = layers.outline.width * side;
  if (layers.shadow || outline) {
    const person = new OffscreenCanvas(width, height);
    drawPerson(person.getContext("2d"), layers.content, matrix, outline, layers.outline.color);
    context.shadowColor = `rgb(0 0 0 / ${SHADOW_OPACITY * layers.shadow})`;
    context.shadowBlur = SHADOW_BLUR * side;
    context.shadowOffsetY = SHADOW_DROP * side;
    context.drawImage(person, 0, 0);
    context.shadowColor = "transparent";
  } else {
    context.setTransform(...matrix);
    context.drawImage(layers.content, 0, 0);
    context.resetTransform();
  }
  if (layers.round) {
    context.globalCompositeOperation = "destination-in";
    context.beginPath();
    context.arc(width / 2, height / 2, Math.min(width, height) / 2, 0, 2 * Math.PI);
    context.fill();
  }
}

function drawPerson(context, content, matrix, outline, color) {
  const { width, height } = context.canvas;
  context.imageSmoothingQuality = "high";
  const draw = (x, y) => {
    context.setTransform(...matrix.slice(0, 4), matrix[4] + x, matrix[5] + y);
    context.drawImage(content, 0, 0);
  };
  if (outline) {
    for (const part of [0.5, 1]) { // the inner ring fills the gaps beside thin parts
      for (let i = 0; i < DIRECTIONS; i++) {
        const angle = (2 * Math.PI * i) / DIRECTIONS;
        draw(part * outline * Math.cos(angle), part * outline * Math.sin(angle));
      }
    }
    context.resetTransform();
    context.globalCompositeOperation = "source-in";
    context.fillStyle = color;
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "source-over";
  }
  draw(0, 0);
}
