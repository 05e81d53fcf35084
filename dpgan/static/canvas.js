// The canvas of dpgan's explorer: label map on the left, picture on the right.
// All logic is in Python (nbs/15_explore.ipynb). This file draws what the traits hold and sends what the pointer and the keys do.

const TOOLS = { select: ["Select", "s"], brush: ["Brush", "b"], fill: ["Fill", "f"], erase: ["Erase", "e"] };
const HINTS = {
  select: "Click selects a region, double click the whole class; shift adds to the selection.",
  brush: "Drag to paint with the class marked below.",
  fill: "Click fills a region with the class marked below.",
  erase: "Drag to bring the original label map back.",
};

function make(parent, tag, className = "", attributes = {}, text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  parent.append(node);
  return node;
}

const copyOf = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength); // bytes arrive as DataViews, anywhere in a buffer

// ---- events: a numbered queue in a trait. What Python has not yet handled is sent again, so nothing is lost when writes are merged.

function sender(model) {
  const session = Math.random().toString(36).slice(2); // numbers of a page that is gone are not ours
  const unseen = (e) => e.n > (model.get("handled")[e.session] || 0);
  let mine = [], last = 0;
  return (event) => {
    const n = ++last;
    mine = mine.filter(unseen);
    if (event.stroke && mine.length && mine[mine.length - 1].stroke === event.stroke) mine.pop(); // a longer version of the same stroke
    mine.push({ ...event, session, n });
    model.set("events", [...model.get("events").filter((e) => e.session !== session && unseen(e)), ...mine]);
    model.save_changes();
    return () => !unseen({ session, n }); // has Python seen it?
  };
}

// ---- drawing

function classIds(model) { // pairs of class and run length -> one class a pixel
  const [height, width] = model.get("size");
  const runs = new Uint16Array(copyOf(model.get("label")));
  const ids = new Uint16Array(height * width);
  for (let i = 0, at = 0; i < runs.length; at += runs[i + 1], i += 2) ids.fill(runs[i], at, at + runs[i + 1]);
  return ids;
}

function word(hex) { // a colour as the four bytes of a pixel: red, green, blue, opaque
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

function drawLabel(canvas, ids, model) {
  const [height, width] = model.get("size");
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const palette = model.get("classes").map((c) => word(c.colour));
  const pixels = new ImageData(width, height);
  new Uint32Array(pixels.data.buffer).set(Uint32Array.from(ids, (id) => palette[id]));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function lines(context, segments, scale, styles) { // every style draws all segments: [colour, line width, dashes]
  context.beginPath();
  for (let i = 0; i < segments.length; i += 4) {
    context.moveTo(segments[i] * scale, segments[i + 1] * scale);
    context.lineTo(segments[i + 2] * scale, segments[i + 3] * scale);
  }
  for (const [colour, width, dashes = []] of styles) {
    Object.assign(context, { strokeStyle: colour, lineWidth: width, lineCap: "square" });
    context.setLineDash(dashes);
    context.stroke();
  }
  context.setLineDash([]);
}

function trail(context, points, size, scale, colour) { // a stroke that Python has not seen yet
  Object.assign(context, { strokeStyle: colour, lineWidth: size * scale, lineCap: "round", lineJoin: "round" });
  context.beginPath();
  const place = ([row, col]) => [(col + 0.5) * scale, (row + 0.5) * scale];
  context.moveTo(...place(points[0]));
  points.forEach((p) => context.lineTo(...place(p)));
  context.stroke();
}

function ring(context, row, col, size, scale) {
  for (const [colour, width] of [["#000", 3], ["#fff", 1.5]]) {
    context.beginPath();
    context.arc((col + 0.5) * scale, (row + 0.5) * scale, Math.max(size / 2, 0.5) * scale, 0, 7);
    Object.assign(context, { strokeStyle: colour, lineWidth: width });
    context.stroke();
  }
}

// ---- the view

function buildSide(parent, name, caption) {
  const side = make(parent, "figure", "dpgan-side");
  const title = make(side, "figcaption", "", {}, caption);
  const stage = make(side, "div", "dpgan-stage");
  const base = make(stage, "canvas", "dpgan-base", { "aria-label": name, role: "img", tabindex: "0" });
  const over = make(stage, "canvas", "dpgan-over", { "aria-hidden": "true" });
  return { title, stage, base, over };
}

function render({ model, el }) {
  const send = sender(model);
  const root = make(el, "div", "dpgan", { "data-lm-suppress-shortcuts": "true" }); // JupyterLab keeps its own keys to itself
  const bar = make(root, "div", "dpgan-tools", { role: "toolbar", "aria-label": "Tools" });
  const sides = make(root, "div", "dpgan-sides");
  const left = buildSide(sides, "Label map", "Label map");
  const right = buildSide(sides, "Picture", "");
  const below = make(root, "div", "dpgan-below");
  const hover = make(below, "div", "dpgan-hover");
  const status = make(below, "div", "dpgan-status", { role: "status" });
  const legend = make(root, "div", "dpgan-legend", { role: "group", "aria-label": "Classes" });
  let ids = classIds(model), scale = 4, pointer = null, stroke = null, unseen = [], pictures = 0;

  const write = (values) => { Object.entries(values).forEach(([k, v]) => model.set(k, v)); model.save_changes(); };
  const button = (parent, className, label, text, press) => {
    const b = make(parent, "button", className, { type: "button", "aria-label": label }, text);
    b.addEventListener("click", press);
    return b;
  };

  // toolbar
  const tools = {};
  for (const [tool, [name, key]] of Object.entries(TOOLS)) {
    tools[tool] = button(bar, "dpgan-tool", name, name, () => write({ tool }));
    tools[tool].title = `${HINTS[tool]} (key ${key})`;
  }
  const adding = button(bar, "dpgan-tool dpgan-adding", "Add to selection", "+", () => write({ adding: !model.get("adding") }));
  adding.title = "Add to the selection instead of replacing it (or hold shift)";
  const sizing = make(bar, "label", "dpgan-sizing", {}, "brush");
  const size = make(sizing, "input", "", { type: "range", min: 1, max: 40, "aria-label": "Brush size" });
  size.addEventListener("input", () => write({ brush_size: +size.value }));
  const width = make(sizing, "span");

  // drawing
  let drawing = 0;
  const redraw = () => { drawing = drawing || requestAnimationFrame(() => { drawing = 0; drawOver(); }); };
  function drawOver() {
    const [height, columns] = model.get("size"), sharp = window.devicePixelRatio || 1;
    const tool = model.get("tool"), brushing = tool === "brush" || tool === "erase";
    const outline = new Int16Array(copyOf(model.get("outline"))), locked = new Int16Array(copyOf(model.get("locked")));
    unseen = unseen.filter((s) => !s.seen());
    for (const { over } of [left, right]) {
      Object.assign(over, { width: Math.round(columns * scale * sharp), height: Math.round(height * scale * sharp) });
      const context = over.getContext("2d");
      context.scale(sharp, sharp);
      if (over === left.over) for (const s of stroke ? [...unseen, stroke] : unseen) trail(context, s.points, s.size, scale, s.colour);
      lines(context, locked, scale, [["#000", 3.5], ["#ffb000", 1.8]]);
      lines(context, outline, scale, [["#000", 3], ["#fff", 1.5]]);
      if (pointer && brushing) ring(context, ...pointer, model.get("brush_size"), scale);
    }
  }
  function fit() { // as large as there is room for, six times at most; whole numbers from four times on
    const [height, columns] = model.get("size"), all = root.clientWidth || 900;
    const each = all < 560 ? all : (all - 16) / 2;
    scale = Math.min(6, each / columns);
    if (scale >= 4) scale = Math.floor(scale);
    for (const { stage } of [left, right]) Object.assign(stage.style, { width: `${columns * scale}px`, height: `${height * scale}px` });
    redraw();
  }
  async function drawPicture() {
    const mine = ++pictures, bytes = model.get("picture");
    if (!bytes.byteLength) return;
    const bitmap = await createImageBitmap(new Blob([copyOf(bytes)], { type: "image/png" }));
    if (mine === pictures) { // else a newer one has come meanwhile
      Object.assign(right.base, { width: bitmap.width, height: bitmap.height });
      right.base.getContext("2d").drawImage(bitmap, 0, 0);
    }
    bitmap.close();
  }
  function showLabel() {
    const [height, columns] = model.get("size");
    if (pointer && (pointer[0] >= height || pointer[1] >= columns)) pointer = null; // the label map became smaller
    ids = classIds(model);
    drawLabel(left.base, ids, model);
    fit();
    showLegend();
    showHover();
  }
  function showLegend() {
    const classes = model.get("classes"), present = new Set(ids), chosen = model.get("brush_class");
    const listed = classes.map((_, i) => i).filter((i) => classes.length <= 40 || present.has(i) || i === chosen);
    const focused = legend.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : "";
    legend.replaceChildren();
    for (const i of listed) {
      const chip = button(legend, "dpgan-class", `class ${classes[i].name}`, classes[i].name, () => {
        write({ brush_class: i });
        if (model.get("tool") === "select" && present.has(i)) send({ kind: "select_class", class_id: i, add: model.get("adding") });
      });
      chip.setAttribute("aria-pressed", i === chosen);
      chip.classList.toggle("dpgan-absent", !present.has(i));
      chip.style.setProperty("--class-colour", classes[i].colour);
      if (focused === `class ${classes[i].name}`) chip.focus();
    }
  }
  function showTools() {
    const tool = model.get("tool");
    for (const [name, b] of Object.entries(tools)) b.setAttribute("aria-pressed", name === tool);
    adding.setAttribute("aria-pressed", model.get("adding"));
    adding.hidden = tool !== "select";
    sizing.hidden = tool !== "brush" && tool !== "erase";
    size.value = model.get("brush_size");
    width.textContent = `${model.get("brush_size")} px`;
    root.dataset.tool = tool;
    showHover();
    redraw();
  }
  function showHover() {
    const columns = model.get("size")[1];
    hover.textContent = pointer ? `${model.get("classes")[ids[pointer[0] * columns + pointer[1]]].name}  ·  row ${pointer[0]}, column ${pointer[1]}` : HINTS[model.get("tool")];
  }
  function showBusy() {
    root.classList.toggle("dpgan-busy", model.get("busy"));
    status.textContent = model.get("busy") ? "drawing …" : "";
  }
  const showCaption = () => { right.title.textContent = model.get("caption"); };

  // pointer
  const at = (event) => {
    const [height, columns] = model.get("size"), box = event.currentTarget.getBoundingClientRect();
    const index = (offset, length, count) => Math.min(count - 1, Math.max(0, Math.floor((offset / length) * count)));
    return [index(event.clientY - box.top, box.height, height), index(event.clientX - box.left, box.width, columns)];
  };
  const adds = (event) => event.shiftKey || event.ctrlKey || event.metaKey || model.get("adding");
  const newStroke = (point, finger) => {
    const kind = model.get("tool") === "brush" ? "paint" : "erase", class_id = model.get("brush_class");
    const colour = kind === "paint" ? model.get("classes")[class_id].colour : "rgba(255,255,255,0.6)";
    return { points: [point], finger, kind, class_id, size: model.get("brush_size"), colour, id: Math.random().toString(36).slice(2), sent: 0, seen: () => false };
  };
  function sendStroke() {
    const { points, kind, class_id, size, id } = stroke;
    stroke.seen = send({ kind, points, size, ...(kind === "paint" ? { class_id } : {}), stroke: id });
    stroke.sent = performance.now();
  }
  function press(event) {
    if (event.button || (stroke && stroke.finger !== event.pointerId)) return; // a second finger paints nothing
    const [row, col] = at(event), tool = model.get("tool"), add = adds(event);
    event.currentTarget.focus({ preventScroll: true });
    if (tool === "select") send({ kind: "select_region", row, col, add });
    else if (tool === "fill") send({ kind: "fill", row, col, class_id: model.get("brush_class") });
    else { event.currentTarget.setPointerCapture(event.pointerId); stroke = newStroke([row, col], event.pointerId); sendStroke(); }
    redraw();
  }
  function move(event) {
    if (stroke && stroke.finger !== event.pointerId) return;
    pointer = at(event);
    if (stroke) {
      const last = stroke.points[stroke.points.length - 1];
      if (last[0] !== pointer[0] || last[1] !== pointer[1]) stroke.points.push(pointer);
      if (performance.now() - stroke.sent > 80) sendStroke();
    }
    showHover();
    redraw();
  }
  function release(event) {
    if (!stroke || stroke.finger !== event.pointerId) return;
    sendStroke();
    unseen.push(stroke);
    stroke = null;
  }
  function leave() { pointer = null; showHover(); redraw(); }
  function double(event) {
    const [row, col] = at(event);
    if (model.get("tool") === "select") send({ kind: "select_class", class_id: ids[row * model.get("size")[1] + col], add: adds(event) });
  }
  for (const { base } of [left, right])
    for (const [name, react] of Object.entries({ pointerdown: press, pointermove: move, pointerup: release, pointercancel: release, pointerleave: leave, dblclick: double }))
      base.addEventListener(name, react);

  // keys
  root.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase(), command = event.ctrlKey || event.metaKey;
    const tool = Object.keys(TOOLS).find((t) => TOOLS[t][1] === key), step = { "[": -1, "]": 1 }[key];
    if (command && (key === "y" || (key === "z" && event.shiftKey))) send({ kind: "redo" });
    else if (command && key === "z") send({ kind: "undo" });
    else if (command || event.altKey) return;
    else if (tool) write({ tool });
    else if (step) write({ brush_size: Math.min(40, Math.max(1, model.get("brush_size") + step)) });
    else if (key === "r") send({ kind: "resample_selection" });
    else if (key === "escape") send({ kind: "select_none" });
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  // traits
  const shown = [
    [["label", "classes", "size"], showLabel], [["outline", "locked", "handled"], redraw], [["picture"], drawPicture], [["caption"], showCaption],
    [["busy"], showBusy], [["tool", "adding", "brush_size"], showTools], [["brush_class"], showLegend],
  ];
  for (const [names, show] of shown) {
    names.forEach((name) => model.on(`change:${name}`, show));
    show();
  }
  const watching = new ResizeObserver(fit);
  watching.observe(root);
  return () => {
    watching.disconnect();
    for (const [names, show] of shown) names.forEach((name) => model.off(`change:${name}`, show));
  };
}

export default { render };
