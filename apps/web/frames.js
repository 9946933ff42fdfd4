// The frames of a finished picture: their sizes, and where the person stands in them.

const HEAD_LOOKS = 1.3; // a head is about this many times as tall as wide
const NECK = 0.88; // the chin is at this fraction of the way from the crown to the narrowest neck
const PROFILE_HEADS = 2.2; // side of a profile picture, in heads
const PROFILE_ABOVE = 0.35; // room above the crown of a profile picture, in heads
export const DPI = 300; // resolution of a printed picture, pixels per inch

/**
 * Sizes in millimetres: [width, height]; `crown` from the upper edge to the top of the head; `head`
 * from there to the chin, least and greatest.
 * Sources: 35 x 45 mm: ICAO Doc 9303, part 3: the head takes 70 to 80 % of the height. 2 x 2 in: U.S.
 * Department of State, photo composition template: 1 to 1 3/8 inches.
 */
export const FRAMES = {
  photo: {},
  person: {},
  square: {},
  circle: {},
  "35x45": { size: [35, 45], crown: 4, head: [31.5, 36] },
  "2x2in": { size: [50.8, 50.8], crown: 5, head: [25.4, 34.9] },
  "25x35": { size: [25, 35], crown: 3, usual: 22 }, // a usual head, no rule
};

const pixels = (millimetres) => Math.round((millimetres / 25.4) * DPI);

/**
 * Where the person is: { box, head }, both in pixels of the image: box { left, top, right, bottom },
 * head { x, top, height }. null if no pixel is above the threshold.
 *
 * The head is a guess from the mask alone: it ends above the first narrow place below its widest one,
 * the neck; long hair hides the neck, then a head's usual proportions decide.
 */
export function measure({ width, height, data }, threshold) {
  const step = Math.max(1, Math.floor(Math.max(width, height) / 256));
  const rows = []; // per sampled row: { count, first, last, sum } of person pixels
  for (let y = 0; y < height; y += step) {
    const row = { y, count: 0, first: width, last: -1, sum: 0 };
    for (let x = 0; x < width; x += step) {
      if (data[y * width + x] <= threshold) continue;
      row.count++;
      row.sum += x;
      row.first = Math.min(row.first, x);
      row.last = x;
    }
    rows.push(row);
  }
  const filled = rows.filter(({ count }) => count);
  if (!filled.length) return null;
  const box = {
    left: Math.min(...filled.map(({ first }) => first)),
    top: filled[0].y,
    right: Math.min(width, Math.max(...filled.map(({ last }) => last)) + step),
    bottom: Math.min(height, filled.at(-1).y + step),
  };
  const size = headHeight(filled, step);
  const top = filled.filter(({ y }) => y < box.top + size);
  const count = top.reduce((sum, row) => sum + row.count, 0);
  const x = top.reduce((sum, row) => sum + row.sum, 0) / count + step / 2;
  return { box, head: { x, top: box.top, height: size } };
}

function headHeight(rows, step) {
  const wide = rows.map(({ count }) => count * step);
  let widest = 0;
  let narrow = 0; // index of the narrowest row below the widest one so far
  for (let i = 1; i < rows.length; i++) {
    if (wide[i] >= wide[narrow] * 1.25 && wide[narrow] < 0.85 * wide[widest]) {
      const height = NECK * step * narrow;
      if (height > 0.7 * wide[widest] && height < 2 * wide[widest]) return height;
    }
    if (wide[i] > wide[widest]) widest = narrow = i;
    else if (wide[i] <= wide[narrow]) narrow = i;
  }
  // The head is the tallest piece from the crown that is as slender as a head.
  for (let i = 2; i < rows.length; i++) {
    if (step * i >= HEAD_LOOKS * wide[i >> 1]) return step * i;
  }
  return step * rows.length;
}

/**
 * Size of a finished picture and where the image lies in it: { width, height, scale, x, y }, whole
 * pixels; the image's point (u, v) comes to (scale * u + x, scale * v + y).
 *
 * @param name of FRAMES
 * @param person as `measure` returns it; null: the frame is the photo's, or its middle
 * @param margin around the person, fraction of the longer side of its box
 * @param inside whether the frame must stay in the photo
 */
export function frameOf(name, { width, height }, person, margin = 0, inside = false) {
  const { size, crown, head, usual } = FRAMES[name];
  if (name === "photo" || (name === "person" && !person)) return { width, height, scale: 1, x: 0, y: 0 };
  const { box, head: found } = person ?? middle(width, height);
  if (size) {
    const scale = pixels(usual ?? (head[0] + head[1]) / 2) / found.height;
    const [w, h] = size.map(pixels);
    return { width: w, height: h, scale, x: w / 2 - scale * found.x, y: pixels(crown) - scale * found.top };
  }
  if (name === "person") {
    const around = margin * Math.max(box.right - box.left, box.bottom - box.top);
    // Where the photo cuts the person off, a margin would show the cut.
    const side = (at, end, sign) => {
      const reached = Math.abs(end - at) <= Math.max(width, height) / 200;
      const wanted = reached ? end : Math.round(at + sign * around);
      return inside ? Math.min(Math.max(0, wanted), sign > 0 ? end : width + height) : wanted;
    };
    const [left, top] = [side(box.left, 0, -1), side(box.top, 0, -1)];
    const [right, bottom] = [side(box.right, width, 1), side(box.bottom, height, 1)];
    return { width: right - left, height: bottom - top, scale: 1, x: -left, y: -top };
  }
  const side = Math.round(Math.min(PROFILE_HEADS * found.height, width, height));
  const within = (value, length) => Math.round(Math.min(length - side, Math.max(0, value)));
  const left = within(found.x - side / 2, width);
  const top = within(found.top - PROFILE_ABOVE * found.height, height);
  return { width: side, height: side, scale: 1, x: -left, y: -top };
}

function middle(width, height) {
  const head = { x: width / 2, top: height / 5, height: Math.min(width, height) / 3 };
  return { box: { left: 0, top: 0, right: width, bottom: height }, head };
}

/** Lines for the crown and the chin, fractions of the frame's height; null where no rule is. */
export function guidesOf(name) {
  const { size, crown, head } = FRAMES[name];
  if (!head) return null;
  return { crown: crown / size[1], chin: head.map((length) => (crown + length) / size[1]) };
}
