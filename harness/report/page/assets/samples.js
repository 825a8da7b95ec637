// What does it draw: samples on canvases, pixel by pixel; clips play together.

function samplesSection() {
  const form = part("samples", ".controls");
  const clips = [];
  for (const set of DATA.samples) {
    const bytes = Uint8Array.from(atob(set.pixels), (sign) => sign.charCodeAt(0));
    const frames = Math.max(1, set.frames);
    const size = set.side * set.side * set.channels;
    const classes = [...new Set(set.classes)];
    const columns = new Map(classes.map((name) => [name, el("div", {}, name)]));
    set.classes.forEach((name, i) => {
      const canvas = el("canvas", { width: set.side, height: set.side });
      const paint = (frame) => paintPixels(canvas, bytes.subarray((i * frames + frame) * size, (i * frames + frame + 1) * size), set);
      paint(0);
      if (set.frames) clips.push({ paint, frames });
      columns.get(name).append(canvas);
    });
    const what = `${set.classes.length} ${set.frames ? `clips of ${set.frames} frames` : "images"}`;
    const reduced = set.side < set.resolution ? `, reduced from ${set.resolution} to ${set.side} pixels` : ` of ${set.side} pixels`;
    part("samples", ".sets").append(el("figure", {},
      el("figcaption", {}, set.title),
      el("div", { class: "tiles", role: "img", "aria-label": `${what} that ${set.title} drew, of classes ${classes.join(", ")}`, style: `grid-template-columns: repeat(${classes.length}, 1fr)` }, [...columns.values()]),
      el("p", { class: "key" }, `${what}${reduced}; ${set.of}; ${set.how}; weights ${set.weights}`),
      el("details", {}, el("summary", {}, "Command"), el("code", {}, set.command))));
  }
  if (!DATA.samples.length) part("samples", ".sets").append("No samples are kept; python -m harness.reproduce draws some.");
  if (clips.length) motion(form, clips);
  return () => {};
}

function paintPixels(canvas, pixels, set) {
  const image = new ImageData(set.side, set.side);
  for (let i = 0; i < set.side * set.side; i += 1) {
    for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = pixels[i * set.channels + (set.channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// A button that plays all clips, or stops them where they are, and a slider through their frames. Who asks for less
// motion has them stand.
function motion(form, clips) {
  const frames = Math.max(...clips.map((clip) => clip.frames));
  const button = el("button", { type: "button", id: "play" });
  const input = el("input", { type: "range", min: 0, max: frames - 1, value: 0, id: "frame" });
  const out = el("output", { for: "frame" });
  form.append(el("div", {}, el("span", { class: "name", "aria-hidden": "true" }, "Clips"), button),
    el("div", { class: "slide" }, el("label", { class: "name", for: "frame" }, "Frame: ", out), input));
  let timer = 0;
  const go = (frame) => {
    input.value = frame;
    out.textContent = `${frame + 1} of ${frames}`;
    for (const clip of clips) clip.paint(frame % clip.frames);
  };
  const play = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(() => go((Number(input.value) + 1) % frames), 160) : 0;
    button.textContent = on ? "Pause the clips" : "Play the clips";
  };
  button.addEventListener("click", () => play(!timer));
  input.addEventListener("input", () => { play(false); go(Number(input.value)); });
  go(0);
  play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}
