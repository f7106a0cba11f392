// Cameras and points while a run goes on: a small plot that turns by itself until it is dragged.
// props.value: {points: [[x, y, z, r, g, b]...], cameras: [[[x, y, z] x 5]...]}, y up, about one unit in size; centre first, then corners.
const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
let turn = 0.6, tilt = 0.45, held = null, touched = still, frame = 0, last = 0;

function data() {
  try { return JSON.parse(props.value || "null"); } catch { return null; }
}

function draw() {
  const canvas = element.querySelector("canvas");
  const scene = data();
  if (!canvas || !scene) return;
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const pen = canvas.getContext("2d", { willReadFrequently: true });  // drawn by the processor: thousands of dots are slow for a software GPU
  pen.clearRect(0, 0, width, height);
  const size = 0.52 * Math.min(width, height);
  const [c, s, d, t] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  const place = ([x, y, z]) => {
    const across = c * x + s * z, away = -s * x + c * z;
    const up = d * y + t * away, depth = d * away - t * y;  // seen from above
    const near = 4.5 / (4.5 + depth);
    return [width / 2 + size * near * across, height / 2 - size * near * up, near];
  };
  const dot = 2.4 * ratio;
  for (const point of scene.points) {
    const [x, y, near] = place(point);
    pen.fillStyle = `rgb(${point[3]}, ${point[4]}, ${point[5]})`;
    pen.fillRect(x, y, dot * near, dot * near);
  }
  pen.lineWidth = 1.4 * ratio;
  pen.strokeStyle = getComputedStyle(canvas).color;
  for (const [centre, ...corners] of scene.cameras) {
    const tip = place(centre), ends = corners.map(place);
    pen.beginPath();
    ends.forEach((end, i) => { pen.moveTo(tip[0], tip[1]); pen.lineTo(end[0], end[1]); const next = ends[(i + 1) % 4]; pen.lineTo(next[0], next[1]); });
    pen.stroke();
  }
}

function loop(now) {
  frame = 0;
  if (!element.isConnected || !data()) return;
  if (now - last > 40) {
    last = now;
    if (!touched && !held) turn += 0.012;
    if (element.offsetParent !== null) draw();
  }
  if (!touched) frame = requestAnimationFrame(loop);
}

function begin() { if (!frame) frame = requestAnimationFrame(loop); }

element.addEventListener("pointerdown", (event) => {
  if (event.target.tagName !== "CANVAS") return;
  held = [event.clientX, event.clientY];
  touched = true;
  event.target.setPointerCapture(event.pointerId);
});
element.addEventListener("pointermove", (event) => {
  if (!held) return;
  turn += (event.clientX - held[0]) * 0.01;
  tilt = Math.min(1.5, Math.max(-1.5, tilt + (event.clientY - held[1]) * 0.01));
  held = [event.clientX, event.clientY];
  draw();
});
element.addEventListener("pointerup", () => { held = null; });
element.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
  if (!step) return;
  event.preventDefault();
  touched = true;
  turn += step[0];
  tilt = Math.min(1.5, Math.max(-1.5, tilt + step[1]));
  draw();
});
window.addEventListener("resize", () => draw());
watch("value", () => { begin(); draw(); });
begin();
