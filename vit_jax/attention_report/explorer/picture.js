// Pixels to be drawn per side, so that small images are sharp on the screen.
const DRAWN_PIXELS = 560;

// Where the drawn pixels of a line lie between the patches: pixel i has
// (1 - share[i]) of patch low[i] and share[i] of patch high[i]. The same as
// `figures.stretch`; without smoothing, each pixel has its own patch only.
function placesOf(numPixels, numPatches, step, smooth) {
  const low = new Int32Array(numPixels);
  const high = new Int32Array(numPixels);
  const share = new Float32Array(numPixels);
  for (let i = 0; i < numPixels; i++) {
    const place = (i + 0.5) / step - (smooth ? 0.5 : 0);
    const inside = Math.min(Math.max(place, 0), numPatches - 1);
    low[i] = Math.floor(inside);
    high[i] = Math.min(low[i] + 1, numPatches - 1);
    share[i] = smooth ? inside - low[i] : 0;
  }
  return {low, high, share};
}

// Puts the colour of a value in [0, 1] over `pixels` at `i`.
function blend(pixels, i, value, alpha) {
  const color = settings.colors[Math.min(255, Math.floor(256 * value))];
  for (let k = 0; k < 3; k++) {
    pixels[i + k] += alpha * (color[k] - pixels[i + k]);
  }
}

// An image with a map over it.
class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    const [height, width] = settings.imageSize;
    this.scale = Math.max(1, Math.ceil(DRAWN_PIXELS / Math.max(height, width)));
    canvas.height = height * this.scale;
    canvas.width = width * this.scale;
    this.context = canvas.getContext('2d', {willReadFrequently: true});
    this.image = null;
  }

  static async decode(source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image;
  }

  // Takes a decoded image; `draw` shows it.
  take(image) {
    const {canvas, context} = this;
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    this.image = context.getImageData(0, 0, canvas.width, canvas.height);
  }

  // Draws `values`, one a patch, with `alpha` of their colours.
  draw(values, alpha, smooth) {
    const share = minMax(values);
    const {width, height} = this.canvas;
    const [rows, columns] = settings.grid;
    const [tokenHeight, tokenWidth] = settings.tokenSize;
    const down = placesOf(height, rows, tokenHeight * this.scale, smooth);
    const across = placesOf(width, columns, tokenWidth * this.scale, smooth);
    const drawn = new ImageData(
      new Uint8ClampedArray(this.image.data), width, height);
    const line = new Float32Array(columns);
    for (let y = 0; y < height; y++) {
      const above = down.low[y] * columns;
      const below = down.high[y] * columns;
      for (let j = 0; j < columns; j++) {
        const upper = share[above + j];
        line[j] = upper + down.share[y] * (share[below + j] - upper);
      }
      for (let x = 0; x < width; x++) {
        const left = line[across.low[x]];
        const value = left + across.share[x] * (line[across.high[x]] - left);
        blend(drawn.data, 4 * (y * width + x), value, alpha);
      }
    }
    this.context.putImageData(drawn, 0, 0);
  }
}

// Draws a map with a pixel a patch.
function drawSmall(canvas, values) {
  const [rows, columns] = settings.grid;
  canvas.height = rows;
  canvas.width = columns;
  const drawn = new ImageData(columns, rows);
  const share = minMax(values);
  for (let i = 0; i < values.length; i++) {
    blend(drawn.data, 4 * i, share[i], 1);
    drawn.data[4 * i + 3] = 255;
  }
  canvas.getContext('2d').putImageData(drawn, 0, 0);
}

// Moves and scales values to [0, 1], as `figures.min_max`.
function minMax(values) {
  const [smallest, largest] = rangeOf(values);
  const span = Math.max(largest - smallest, 1e-30);
  return values.map((value) => (value - smallest) / span);
}

function rangeOf(values) {
  return [Math.min, Math.max].map((pick) => values.reduce((a, b) => pick(a, b)));
}
