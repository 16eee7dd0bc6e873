"use strict";
// Brings a report to life: curves that tell the values of a step, and the viewer of clips.
// All that it shows stands in the page; it asks nobody for anything.
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const within = (value, low, high) => Math.min(Math.max(value, low), high);

  // Curves: each is a slider over the steps that were measured.

  function liven(plot) {
    const lines = JSON.parse(plot.dataset.lines);
    const drawn = all("polyline", plot).map((line) => [...line.points]);
    const places = new Map(); // step -> where it is drawn
    lines.forEach((line, at) => line.steps.forEach((step, i) => places.set(step, drawn[at][i].x)));
    const steps = [...places.keys()].sort((a, b) => a - b);
    const here = find(".here", plot), readout = find(".readout", plot.parentNode);
    let now = steps.length - 1;

    function show(at) {
      now = within(at, 0, steps.length - 1);
      const step = steps[now];
      const values = lines.map((line) => {
        const last = line.steps.findLastIndex((one) => one <= step);
        return last < 0 ? "" : `${line.name} ${line.texts[last]}`;
      });
      const words = `step ${step}: ${values.filter(Boolean).join("; ")}`;
      readout.textContent = words;
      plot.setAttribute("aria-valuenow", step);
      plot.setAttribute("aria-valuetext", words);
      here.setAttribute("x1", places.get(step));
      here.setAttribute("x2", places.get(step));
      here.removeAttribute("hidden");
    }

    plot.addEventListener("pointermove", (event) => {
      const picture = find("svg", plot), box = picture.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * picture.viewBox.baseVal.width;
      const far = (at) => Math.abs(places.get(steps[at]) - x);
      show(steps.reduce((best, _, at) => (far(at) < far(best) ? at : best), 0));
    });
    plot.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1,
        PageDown: now - 10, PageUp: now + 10, Home: 0, End: steps.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(to);
    });
  }

  all(".plot").forEach(liven);

  // The viewer. `state` is all that can change; `draw` shows it, once per picture of the screen.

  const root = find("#viewer");
  if (!root) return;
  const data = JSON.parse(find("#viewer-data").textContent);
  const stage = find("#stage"), frames = find("#frame"), checkpoints = find("#checkpoint");
  const play = find("#play"), key = find("#key"), said = find("#said");
  const figures = all("figure", stage);
  const across = Math.ceil(Math.sqrt(data.frames)); // frames in a row of a sprite
  const state = { clip: 0, layer: "mask", frame: 0, checkpoint: data.steps.length - 1 };
  const pictures = new Map(), unpacked = new Map();
  let isDue = false, timer = 0, quiet = 0;

  const clip = () => data.clips[state.clip];
  const slot = () => Math.floor(state.frame / data.tubelet);
  // Of a run, the newest checkpoint that is not newer than the chosen step.
  const place = (column) => Math.max(0,
    data.columns[column].steps.findLastIndex((step) => step <= data.steps[state.checkpoint]));
  const look = (column) => clip().looks[column][place(column)];

  function picture(source) {
    if (!pictures.has(source)) {
      const image = new Image();
      image.onload = () => { image.isReady = true; later(); };
      image.src = source;
      pictures.set(source, image);
    }
    return pictures.get(source);
  }

  // The tokens of the present time slot, as bytes.
  function tokens(text) {
    if (!unpacked.has(text)) unpacked.set(text, Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
    const count = data.cells ** 2;
    return unpacked.get(text).subarray(slot() * count, (slot() + 1) * count);
  }

  const top = (layer) => Math.max(...figures.map((_, column) => look(column)[layer].top));

  function paint(canvas, layer, column) {
    const side = clip().size, zoom = Math.max(1, Math.round(480 / side));
    const context = canvas.getContext("2d"), size = side * zoom, cell = size / data.cells;
    if (canvas.width !== size) canvas.width = canvas.height = size;
    context.imageSmoothingEnabled = false;
    const each = (draw) => {
      for (let at = 0; at < data.cells ** 2; at++)
        draw(at, (at % data.cells) * cell, Math.floor(at / data.cells) * cell);
    };
    const outline = (bytes, colour, width) => {
      context.strokeStyle = colour;
      context.lineWidth = width;
      each((at, x, y) => bytes[at] &&
        context.strokeRect(x + width / 2, y + width / 2, cell - width, cell - width));
    };
    const film = (source) => {
      const image = picture(source);
      if (!image.isReady) return;
      const width = image.naturalWidth / across;
      const height = image.naturalHeight / Math.ceil(data.frames / across);
      const x = (state.frame % across) * width, y = Math.floor(state.frame / across) * height;
      context.drawImage(image, x, y, width, height, 0, 0, size, size);
    };
    const shade = (text) => {
      film(clip().input);
      const bytes = tokens(text);
      context.fillStyle = "rgba(0,0,0,.72)";
      each((at, x, y) => bytes[at] || context.fillRect(x, y, cell, cell));
      outline(bytes, "#ffd60a", Math.max(1, cell / 14));
    };
    if (layer === "input") film(clip().input);
    else if (layer === "reconstruction") film(look(column).reconstruction);
    else if (layer === "mask") shade(look(column).visible);
    else if (layer === "other") shade(clip().other);
    else if (layer === "motion") shade(clip().moving);
    else {
      const { bytes, top: own } = look(column)[layer], colours = data.colours[layer];
      const values = tokens(bytes), scale = (own / top(layer) / 255) * (colours.length - 1);
      each((at, x, y) => {
        context.fillStyle = colours[Math.round(values[at] * scale)];
        context.fillRect(x, y, Math.ceil(cell), Math.ceil(cell));
      });
      if (layer === "probability" && clip().moving)
        outline(tokens(clip().moving), "#fff", Math.max(1, cell / 16));
    }
  }

  const digits = (value) => (value ? Number(value.toPrecision(3)) : 0);

  // What is seen in the picture of one run, in words.
  function caption(column) {
    const { name, steps } = data.columns[column], seen = look(column);
    const shown = tokens(seen.visible).reduce((sum, one) => sum + one, 0);
    return `${name}, step ${steps[place(column)]}: error ${seen.mean} in this clip, ` +
      `${shown} of ${data.cells ** 2} tokens visible in this time slot`;
  }

  function draw() {
    isDue = false;
    figures.forEach((figure, column) => {
      paint(find("canvas", figure), state.layer, column);
      const words = caption(column);
      find("figcaption", figure).textContent = words;
      find("canvas", figure).setAttribute("aria-label",
        `${data.layers[state.layer].name} of ${clip().name}. ${words}`);
    });
    all(".thumbs label").forEach((label) =>
      paint(find("canvas", label), find("input", label).value, 0));
    const where = `Frame ${state.frame + 1} of ${data.frames}, time slot ${slot() + 1}`;
    find("output[for=frame]").textContent = where;
    frames.value = state.frame + 1;
    frames.setAttribute("aria-valuetext", where);
    const step = `Step ${data.steps[state.checkpoint]}, ` +
      `${state.checkpoint + 1} of ${data.steps.length}`;
    find("output[for=checkpoint]").textContent = step;
    checkpoints.value = state.checkpoint + 1;
    checkpoints.setAttribute("aria-valuetext", step);
    const { meaning } = data.layers[state.layer], colours = data.colours[state.layer];
    key.textContent = meaning;
    if (colours) {
      const bar = document.createElement("i"), most = digits(top(state.layer));
      bar.style.background = `linear-gradient(90deg,${colours.join()})`;
      key.append(" 0", bar, `${most}${state.layer === "probability" ? "x" : " or more"}`);
    }
    clearTimeout(quiet); // a screen reader hears where the scrubbing ended
    if (!timer) quiet = setTimeout(() => {
      said.textContent = `${data.layers[state.layer].name}. ${where}. ${caption(0)}`;
    }, 500);
    if (!document.documentElement.dataset.ready && picture(clip().input).isReady)
      document.documentElement.dataset.ready = performance.now();
  }

  function later() {
    if (!isDue) requestAnimationFrame(draw);
    isDue = true;
  }

  function go(change) {
    Object.assign(state, change);
    state.frame = within(state.frame, 0, data.frames - 1);
    state.checkpoint = within(state.checkpoint, 0, data.steps.length - 1);
    // Those of the neighbours too, so that the next step shows at once.
    figures.forEach((_, column) =>
      clip().looks[column].forEach((one) => picture(one.reconstruction)));
    later();
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }

  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Pause";
    timer = setInterval(() => go({ frame: (state.frame + 1) % data.frames }), 125);
  });
  all("input[type=radio]", root).forEach((input) => {
    input.checked = input.value === (input.name === "clip" ? "0" : state.layer);
    input.addEventListener("change", () =>
      go({ [input.name]: input.name === "clip" ? Number(input.value) : input.value }));
  });
  frames.addEventListener("input", () => { stop(); go({ frame: frames.value - 1 }); });
  checkpoints.addEventListener("input", () => go({ checkpoint: checkpoints.value - 1 }));
  root.addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT") return; // has arrow keys of its own
    const change = { ArrowLeft: { frame: state.frame - 1 }, ArrowRight: { frame: state.frame + 1 },
      ArrowDown: { checkpoint: state.checkpoint - 1 },
      ArrowUp: { checkpoint: state.checkpoint + 1 } }[event.key];
    if (!change) return;
    event.preventDefault();
    stop();
    go(change);
  });
  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const figure = event.target.closest("canvas");
    if (!figure) return;
    const box = figure.getBoundingClientRect();
    stop();
    stage.focus({ preventScroll: true }); // arrow keys go on from here
    go({ frame: Math.floor(((event.clientX - box.left) / box.width) * data.frames) });
  };
  ["pointerdown", "pointermove"].forEach((kind) => stage.addEventListener(kind, drag));
  go({});
})();
