const at = (id) => document.getElementById(id);
// Three digits, as many as the packed weights have.
const percent = (share) =>
  share < 1e-5 ? '< 0.001 %' : `${(100 * share).toPrecision(3)} %`;

const state = {
  image: 0,
  layer: settings.numLayers - 1,
  head: MEAN,
  rollout: false,
  kept: OUTPUT, // Asks while the pointer is elsewhere.
  pointed: null, // The patch below the pointer.
  weights: null, // Of the image, once they are read.
};
const picture = new Picture(at('picture'));
const output = settings.hasClassToken ? 'Class token' : 'Mean of all patches';

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// --- What is shown ----------------------------------------------------------

const asking = () => state.pointed ?? state.kept;
const plane = () => (state.rollout ? ROLLOUT : state.head);
const rowOf = (layer, head) => state.weights.row(layer, head, asking());

function place(patch) {
  const columns = settings.grid[1];
  return `row ${Math.floor(patch / columns)}, column ${patch % columns}`;
}

function headName(head) {
  const {numHeads} = settings;
  if (head !== MEAN) return `head ${head}`;
  return numHeads === 1 ? 'its one head' : `mean of ${numHeads} heads`;
}

let planned = false;
function redraw() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    showControls();
    if (!state.weights) return;
    const {patches, classToken} = rowOf(state.layer, plane());
    const [smallest, largest] = rangeOf(patches);
    picture.draw(patches, Number(at('alpha').value), at('smooth').checked);
    at('smallest').textContent = percent(smallest);
    at('largest').textContent = percent(largest);
    showAnswer(patches, classToken, largest);
    showMarker();
    showStrips();
  });
}

function showControls() {
  at('layer').value = state.layer;
  at('layer-value').textContent = state.layer;
  at('head').value = state.head;
  at('head').disabled = state.rollout;
  at('head-value').textContent = state.rollout
    ? settings.headFusion : state.head === MEAN ? 'mean' : state.head;
  at('alpha-value').textContent = `${Math.round(100 * at('alpha').value)} %`;
  for (const name of ['layer', 'head', 'alpha']) {
    // Or a screen reader would call the mean -1.
    at(name).ariaValueText = at(`${name}-value`).textContent;
  }
  at('rollout').checked = state.rollout;
  at('release').disabled = state.kept === OUTPUT;
}

function showAnswer(patches, classToken, largest) {
  const who = asking() === OUTPUT ? output : `Patch in ${place(asking())}`;
  at('question').textContent = state.rollout
    ? `${who} after layer ${state.layer}: rollout from the image`
    : `${who} in layer ${state.layer}, ${headName(state.head)}`;
  const strongest = place(patches.indexOf(largest));
  at('takes').textContent = largest > 0
    ? `takes most from ${strongest}: ${percent(largest)}`
    : 'takes nothing from any patch';
  const share = patches.reduce((a, b) => a + b, 0);
  at('rest').textContent = settings.hasClassToken
    ? `All patches ${percent(share)}, class token ${percent(classToken)}`
    : '';
}

function showMarker() {
  const marker = at('marker');
  marker.hidden = asking() === OUTPUT;
  if (marker.hidden) return;
  const columns = settings.grid[1];
  const where = [Math.floor(asking() / columns), asking() % columns];
  const [top, left] = [0, 1].map((axis) => part(axis, where[axis]));
  const [height, width] = [0, 1].map((axis) => part(axis, 1));
  Object.assign(marker.style, {top, left, height, width});
}

function part(axis, tokens) {
  return `${(100 * tokens * settings.tokenSize[axis]) / settings.imageSize[axis]}%`;
}

function showStrips() {
  at('heads-title').textContent = `Heads of layer ${state.layer}`;
  at('layers-title').textContent = state.rollout
    ? 'Rollout after each layer' : `All layers, ${headName(state.head)}`;
  [...at('heads').children].forEach((button, i) => {
    const head = i - 1;
    button.disabled = state.rollout;
    button.ariaPressed = !state.rollout && head === state.head;
    drawSmall(button.firstChild, rowOf(state.layer, head).patches);
  });
  [...at('layers').children].forEach((button, layer) => {
    button.ariaPressed = layer === state.layer;
    drawSmall(button.firstChild, rowOf(layer, plane()).patches);
  });
}

// --- What the reader does ---------------------------------------------------

function change(fields) {
  Object.assign(state, fields);
  redraw();
}

function pointedAt(event) {
  const box = at('picture').getBoundingClientRect();
  const [rows, columns] = settings.grid;
  const [row, column] = [
    [event.clientY - box.top, box.height, rows],
    [event.clientX - box.left, box.width, columns],
  ].map(([offset, side, count], axis) => {
    const pixels = (offset / side) * settings.imageSize[axis];
    const patch = Math.floor(pixels / settings.tokenSize[axis]);
    return clamp(patch, 0, count - 1);
  });
  return row * columns + column;
}

function move(down, right) {
  const [rows, columns] = settings.grid;
  if (asking() === OUTPUT) {
    // From nowhere to the middle.
    const middle = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
    return change({kept: middle, pointed: null});
  }
  const row = Math.floor(asking() / columns) + down;
  const column = (asking() % columns) + right;
  const inside =
    clamp(row, 0, rows - 1) * columns + clamp(column, 0, columns - 1);
  change({kept: inside, pointed: null});
}

const keys = {
  ArrowUp: () => move(-1, 0),
  ArrowDown: () => move(1, 0),
  ArrowLeft: () => move(0, -1),
  ArrowRight: () => move(0, 1),
  Escape: () => change({kept: OUTPUT, pointed: null}),
  l: (step) =>
    change({layer: clamp(state.layer + step, 0, settings.numLayers - 1)}),
  h: (step) =>
    state.rollout ||
    change({head: clamp(state.head + step, MEAN, settings.numHeads - 1)}),
  r: () => change({rollout: !state.rollout}),
};

at('stage').addEventListener('keydown', (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey || event.altKey || !keys[key]) return;
  event.preventDefault();
  keys[key](event.shiftKey ? -1 : 1);
});
at('picture').addEventListener('pointermove', (event) =>
  change({pointed: pointedAt(event)}));
at('picture').addEventListener('pointerleave', () => change({pointed: null}));
// On a touch screen this is a tap.
at('picture').addEventListener('click', (event) =>
  change({kept: pointedAt(event)}));
at('layer').addEventListener('input', (event) =>
  change({layer: Number(event.target.value)}));
at('head').addEventListener('input', (event) =>
  change({head: Number(event.target.value)}));
at('rollout').addEventListener('change', (event) =>
  change({rollout: event.target.checked}));
at('alpha').addEventListener('input', redraw);
at('smooth').addEventListener('change', redraw);
at('release').addEventListener('click', () => {
  at('stage').focus(); // The button is of no use now.
  change({kept: OUTPUT});
});

// --- Images -----------------------------------------------------------------

async function choose(index) {
  state.image = index;
  state.weights = null;
  at('stage').ariaBusy = true;
  const {name, title, source} = settings.images[index];
  at('name').textContent = name;
  at('prediction').textContent = title;
  [...at('images').children].forEach((button, i) => {
    button.ariaPressed = i === index;
  });
  try {
    const found = [Weights.read(index), Picture.decode(source)];
    const [weights, image] = await Promise.all(found);
    if (state.image !== index) return; // The reader has chosen another.
    picture.take(image);
    at('stage').ariaBusy = false;
    change({weights});
  } catch (error) {
    at('question').textContent = `${name} can not be shown: ${error.message}`;
    at('takes').textContent = at('rest').textContent = '';
  }
}

// --- Light and dark ---------------------------------------------------------

const prefersDark = matchMedia('(prefers-color-scheme: dark)');
const root = document.documentElement;

function isDark() {
  return root.dataset.theme ? root.dataset.theme === 'dark' : prefersDark.matches;
}

function showTheme() {
  at('theme').textContent = isDark() ? 'Light' : 'Dark';
}

at('theme').addEventListener('click', () => {
  root.dataset.theme = isDark() ? 'light' : 'dark';
  showTheme();
});
prefersDark.addEventListener('change', showTheme);

// --- The start --------------------------------------------------------------

function addButton(parent, child, text, label, onClick) {
  const button = document.createElement('button');
  button.type = 'button';
  button.title = label;
  button.ariaLabel = label;
  button.append(child, text);
  button.addEventListener('click', onClick);
  parent.append(button);
}

function start() {
  const left = settings.numLeftOut;
  const notes = [settings.note, left && `${left} more images had no room here.`];
  at('note').textContent = notes.filter(Boolean).join(' · ');
  at('note').hidden = !at('note').textContent;
  at('layer').max = settings.numLayers - 1;
  at('head').max = settings.numHeads - 1;
  at('alpha').value = settings.alpha;
  at('release').textContent = `Back to ${output.toLowerCase()}`;
  const scale = at('scale').getContext('2d');
  settings.colors.forEach(([red, green, blue], i) => {
    scale.fillStyle = `rgb(${red} ${green} ${blue})`;
    scale.fillRect(i, 0, 1, 1);
  });
  for (let head = MEAN; head < settings.numHeads; head++) {
    addButton(at('heads'), document.createElement('canvas'),
      head === MEAN ? 'mean' : head, headName(head), () => change({head}));
  }
  for (let layer = 0; layer < settings.numLayers; layer++) {
    addButton(at('layers'), document.createElement('canvas'),
      layer, `layer ${layer}`, () => change({layer}));
  }
  settings.images.forEach(({name, source}, i) => {
    if (settings.images.length === 1) return;
    const image = new Image();
    image.src = source;
    image.alt = '';
    addButton(at('images'), image, '', name, () => choose(i));
  });
  showTheme();
  choose(0);
}

start();
