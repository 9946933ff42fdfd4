// Six backgrounds, drawn on a 2D context of any size. Their shapes are soft, like an unfocused
// background behind a person.

/** Fills the whole context with a gradient; stops are [place 0..1, colour]. */
function wash(context, width, height, gradient, ...stops) {
  for (const stop of stops) gradient.addColorStop(...stop);
  context.fillStyle = gradient;
  context.fillRect(0, 0, width, height);
}

const down = (context, height) => context.createLinearGradient(0, 0, 0, height);

/** A round patch of light, even up to `core`, a fraction of its radius. */
function light(context, x, y, radius, [red, green, blue, alpha], core = 0) {
  const gradient = context.createRadialGradient(x, y, 0, x, y, radius);
  gradient.addColorStop(core, `rgb(${red} ${green} ${blue} / ${alpha})`);
  gradient.addColorStop(1, `rgb(${red} ${green} ${blue} / 0)`);
  context.fillStyle = gradient;
  context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
}

/** A generator of pseudo-random numbers 0..1, always the same for a seed. */
function randomNumbers(seed) {
  return () => (seed = (seed * 16807) % 2147483647) / 2147483647;
}

function studio(context, width, height) {
  const [x, y, radius] = [width * 0.5, height * 0.42, Math.hypot(width, height) * 0.62];
  const gradient = context.createRadialGradient(x, y, 0, x, y, radius);
  wash(context, width, height, gradient, [0, "#dfe3e6"], [0.55, "#9aa4ad"], [1, "#4d5862"]);
}

function dusk(context, width, height) {
  const stops = ["#27305c", "#5f4b86", "#c46f86", "#f3a683", "#ffd7a1"];
  const places = [0, 0.3, 0.58, 0.78, 1];
  wash(context, width, height, down(context, height), ...stops.map((color, i) => [places[i], color]));
  const side = Math.max(width, height);
  light(context, width * 0.74, height * 0.8, side * 0.5, [255, 224, 160, 0.55]);
  light(context, width * 0.74, height * 0.8, side * 0.09, [255, 244, 214, 0.95], 0.5);
}

function sea(context, width, height) {
  wash(
    context, width, height, down(context, height),
    [0, "#5f9fd4"], [0.5, "#d3e9f5"], [0.57, "#eaf4f6"], [0.6, "#5aa3b8"], [0.84, "#1f6d8d"],
    [0.87, "#e9dcc0"], [1, "#d8c298"],
  );
  const next = randomNumbers(11);
  const side = Math.max(width, height);
  for (let i = 0; i < 26; i++) {
    const [x, y] = [next() * width, (0.08 + 0.32 * next()) * height];
    light(context, x, y, side * (0.06 + 0.1 * next()), [255, 255, 255, 0.3]);
  }
}

function garden(context, width, height) {
  wash(context, width, height, down(context, height), [0, "#a9c46c"], [0.55, "#4f8047"], [1, "#1d3b29"]);
  const next = randomNumbers(5);
  const side = Math.max(width, height);
  const greens = [[214, 232, 140, 0.34], [120, 170, 80, 0.4], [24, 60, 36, 0.4], [250, 250, 190, 0.25]];
  for (let i = 0; i < 90; i++) {
    const [x, y, color] = [next() * width, next() * height, greens[Math.floor(next() * 4)]];
    light(context, x, y, side * (0.03 + 0.09 * next()), color, 0.55);
  }
}

function city(context, width, height) {
  wash(context, width, height, down(context, height), [0, "#0d1530"], [0.6, "#1d2347"], [1, "#120f26"]);
  const next = randomNumbers(23);
  const side = Math.max(width, height);
  const lamps = [[255, 150, 60, 0.5], [255, 80, 100, 0.4], [70, 160, 255, 0.4], [255, 214, 150, 0.5]];
  context.globalCompositeOperation = "lighter";
  for (let i = 0; i < 60; i++) {
    const [x, y] = [next() * width, (0.15 + 0.8 * next()) * height];
    light(context, x, y, side * (0.015 + 0.05 * next()), lamps[Math.floor(next() * 4)], 0.7);
  }
  context.globalCompositeOperation = "source-over";
}

/** A wall with the light of a window on it. */
function room(context, width, height) {
  const across = context.createLinearGradient(0, 0, width, height);
  wash(context, width, height, across, [0, "#dccbb6"], [0.5, "#c9b49b"], [1, "#9c846c"]);
  const pane = Math.max(width, height) * 0.17;
  const steps = 14; // the same shape a little larger each time: a soft rim
  for (let step = 0; step < steps; step++) {
    const rim = pane * 0.014 * step;
    context.fillStyle = `rgb(255 243 214 / ${1.3 / steps})`;
    for (const [column, row] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
      const left = width * 0.08 + column * pane * 1.12 + row * pane * 0.35 - rim;
      const top = height * 0.08 + row * pane * 1.3 + column * pane * 0.16 - rim;
      const [w, h] = [pane + 2 * rim, pane * 1.18 + 2 * rim];
      context.beginPath();
      context.moveTo(left, top);
      context.lineTo(left + w, top + pane * 0.16);
      context.lineTo(left + w + pane * 0.32, top + h + pane * 0.16);
      context.lineTo(left + pane * 0.32, top + h);
      context.fill();
    }
  }
}

export const BACKGROUNDS = { studio, room, garden, sea, dusk, city };
