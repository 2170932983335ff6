'use strict';

// The page's settings, from page.py.
const settings = JSON.parse(document.getElementById('settings').textContent);

// Who asks, if it is no patch: the class token, or all patches on average.
const OUTPUT = -1;
// Which of a layer's planes, if it is not one head.
const MEAN = -1;
const ROLLOUT = settings.numHeads;

// The attention of one image, as packing.py has packed it.
class Weights {
  static async read(index) {
    const text = document.getElementById(`weights${index}`).textContent;
    const packed = Weights.#bytes(text);
    if (!window.DecompressionStream) {
      throw new Error('this browser is too old. Use one of 2024 or later.');
    }
    const stream = new Blob([packed])
      .stream()
      .pipeThrough(new DecompressionStream('deflate'));
    return new Weights(await new Response(stream).arrayBuffer());
  }

  static #bytes(base64) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }

  constructor(buffer) {
    this.numPatches = settings.grid[0] * settings.grid[1];
    this.first = settings.hasClassToken ? 1 : 0;
    this.numTokens = this.numPatches + this.first;
    this.numPlanes = settings.numHeads + 1;
    const numRows = settings.numLayers * this.numPlanes * this.numTokens;
    this.largest = new Float32Array(buffer, 0, numRows);
    this.onClassToken = new Float32Array(buffer, 4 * numRows, numRows);
    this.codes = new Uint8Array(buffer, 8 * numRows);
    this.averages = new Map();
  }

  // Returns what `asking`, a patch or OUTPUT, takes in a layer: {patches: of
  // each, classToken}. `head` is one, MEAN or ROLLOUT.
  row(layer, head, asking) {
    const averages = asking === OUTPUT && !this.first;
    const key = `${layer} ${head}`;
    if (averages && this.averages.has(key)) return this.averages.get(key);
    const found = {patches: new Float32Array(this.numPatches), classToken: 0};
    const planes =
      head === MEAN ? [...Array(settings.numHeads).keys()] : [head];
    const tokens = averages
      ? [...Array(this.numTokens).keys()]
      : [asking === OUTPUT ? 0 : asking + this.first];
    const share = 1 / (planes.length * tokens.length);
    for (const plane of planes) {
      for (const token of tokens) this.#add(found, layer, plane, token, share);
    }
    if (averages) this.averages.set(key, found);
    return found;
  }

  #add(found, layer, plane, token, share) {
    const row = (layer * this.numPlanes + plane) * this.numTokens + token;
    const scale = (share * this.largest[row]) / 255 ** 2;
    const start = row * this.numPatches;
    for (let i = 0; i < this.numPatches; i++) {
      found.patches[i] += scale * this.codes[start + i] ** 2;
    }
    found.classToken += share * this.onClassToken[row];
  }
}
