// The page: a recording comes in, prompts are written and marked, stems come out.

import { getBytes, getJson, post, remove, send } from "./api.js";
import { Box } from "./box.js";
import { player } from "./player.js";
import { Prompts } from "./prompts.js";
import { clock, element, ruler, Track } from "./track.js";

const MIXTURE = "mixture";
const $ = (id) => document.getElementById(id);
const ICONS = { play: "M7 4v16l13-8z", pause: "M6 4h4v16H6zM14 4h4v16h-4z" };

const prompts = new Prompts($("prompts"));
const box = new Box({
  screen: $("screen"), node: $("box"), clear: $("box-clear"),
  inputs: [0, 1, 2, 3].map((side) => $(`side-${side}`)),
});
let model = null;
let recording = null;
let tracks = [];
let job = null; // the one that waits or runs
let upload = null;

// What went wrong, in the server's sentence.

function complain(error) {
  $("problem-text").textContent = error.message;
  $("problem").hidden = false;
}

function settle() {
  $("problem").hidden = true;
}

// Runs what a click starts; a refusal is shown.
const guarded = (action) => async (...values) => {
  settle();
  try {
    await action(...values);
  } catch (error) {
    complain(error);
  }
};

function list(node, lines) {
  node.replaceChildren(...lines.map((line) => element("li", {}, line)));
}

// The recording.

function checkFile(file) {
  if (file.size > model.max_mb * 1e6) {
    throw new Error(`the file is too large: this page takes up to ${model.max_mb} MB`);
  }
}

async function takeFile(file) {
  checkFile(file);
  $("upload").hidden = false;
  const show = (share) => {
    $("upload-bar").value = share;
    $("upload-text").textContent = share < 1 ? `Uploading ${file.name}` : `Reading ${file.name}`;
  };
  show(0);
  upload = send(file, show);
  try {
    const facts = await upload.answer;
    if (facts) await openRecording(facts);
  } finally {
    upload = null;
    $("upload").hidden = true;
  }
}

async function openRecording(facts) {
  const path = `/api/recordings/${facts.id}`;
  const bytes = await getBytes(`${path}/drawing`);
  leave();
  recording = facts;
  $("start").hidden = true;
  $("work").hidden = $("transport").hidden = false;
  $("name").textContent = facts.name;
  const channels = { 1: "mono", 2: "stereo" }[facts.channels] ?? `${facts.channels} channels`;
  $("facts").textContent = `${clock(facts.seconds)} · ${channels} · ${facts.sample_rate / 1000} kHz`;
  list($("notes"), facts.notes);
  prompts.reset(facts.seconds);
  const track = new Track({
    name: MIXTURE, label: "recording", seconds: facts.seconds, sampleRate: facts.sample_rate,
    drawing: { bytes, shape: facts.drawing },
  }).editable(prompts);
  tracks = [track];
  track.node.append(ruler(facts.seconds));
  $("mixture").replaceChildren(track.node);
  showVideo();
  player.reset(facts.sample_rate);
  showSwitch();
  prompts.focus();
  await player.add(MIXTURE, await getBytes(`${path}/mixture.wav`));
}

function leave() {
  player.stop();
  if (job) cancel();
  if (recording) remove(`/api/recordings/${recording.id}`).catch(() => {});
  recording = null;
  tracks = [];
  $("results").hidden = true;
  $("stems").replaceChildren();
}

function showStart() {
  leave();
  settle();
  $("start").hidden = false;
  $("work").hidden = $("transport").hidden = true;
  $("choose").focus();
}

async function tryExample() {
  const facts = await post("/api/example", {});
  await openRecording(facts);
  prompts.reset(facts.seconds);
  prompts.fill(facts.text, facts.spans);
}

// The video.

function showVideo() {
  $("video").hidden = !recording.has_video;
  if (!recording.has_video) return;
  const reason = model.why_no_video;
  box.enable(!reason);
  $("sides").hidden = Boolean(reason);
  $("box-clear").hidden = Boolean(reason);
  $("video-text").textContent = reason
    ? `Drawing a box is off: ${reason}. Texts and spans work.`
    : "Drag a box around what makes the sound. It stands for the whole video.";
  showFrame();
}

function showFrame() {
  const time = Math.min(player.position, recording.seconds).toFixed(2);
  $("frame").src = `/api/recordings/${recording.id}/frame.jpg?time=${time}`;
}

// The separation.

function request() {
  const number = (id) => ($(id).value === "" ? null : Number($(id).value));
  return {
    recording: recording.id,
    prompts: prompts.values(),
    box: box.value,
    refine: $("refine").checked,
    joint: $("joint").checked && prompts.count > 1,
    steps: number("steps"),
    seed: number("seed") ?? 0,
  };
}

function busy(on) {
  $("separate").disabled = on;
  $("cancel").hidden = $("status").hidden = !on;
}

function showProgress({ state, ahead, stage, elapsed_s: elapsed, expected_s: expected }) {
  const bar = $("bar");
  bar.removeAttribute("value"); // moves to and fro
  if (state === "waiting") {
    $("status-text").textContent = ahead ? `${ahead} before yours` : "Begins in a moment";
    return;
  }
  let words = stage ? stage[0].toUpperCase() + stage.slice(1) : "Begins";
  if (expected && elapsed !== null) {
    bar.value = Math.min(elapsed / expected, 0.97);
    const left = Math.ceil(expected - elapsed);
    if (left > 0) words += `, about ${left} s left`;
  }
  $("status-text").textContent = words;
}

async function separate() {
  const mine = await post("/api/jobs", request());
  job = mine;
  busy(true);
  try {
    let facts = mine;
    const began = performance.now();
    while (job === mine && ["waiting", "running"].includes(facts.state)) {
      showProgress(facts);
      const pause = performance.now() - began < 5000 ? 150 : 700;
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (job === mine) facts = await getJson(`/api/jobs/${mine.id}`);
    }
    if (job !== mine) return;
    if (facts.state === "failed") throw new Error(facts.error);
    if (facts.state === "done") await showStems(facts);
  } finally {
    if (job === mine) {
      job = null;
      busy(false);
    }
  }
}

function cancel() {
  if (!job) return;
  remove(`/api/jobs/${job.id}`).catch(() => {});
  job = null;
  busy(false);
}

async function showStems(facts) {
  const path = `/api/jobs/${facts.id}/stems`;
  const drawings = await Promise.all(
    facts.stems.map((_, number) => getBytes(`${path}/${number}/drawing`)));
  player.keepOnly(MIXTURE);
  tracks = tracks.slice(0, 1);
  const made = facts.stems.map((stem, number) => new Track({
    name: `stem-${facts.id}-${number}`, label: stem.label, seconds: recording.seconds,
    sampleRate: stem.sample_rate, link: `${path}/${number}.wav`,
    drawing: { bytes: drawings[number], shape: stem.drawing },
    colour: stem.kind === "target" ? prompts.colourOf(stem.prompt) : null,
  }).still());
  tracks.push(...made);
  $("stems").replaceChildren(...made.map((track) => track.node));
  list($("job-notes"), facts.notes);
  $("results").hidden = false;
  showSwitch();
  for (const [number, track] of made.entries()) {
    await player.add(track.name, await getBytes(`${path}/${number}.wav`));
  }
  player.listen(made[0].name);
  $("results").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// The transport.

function showSwitch() {
  $("switch").replaceChildren(...tracks.map((track, number) => {
    const label = track.node.querySelector(".label").textContent;
    const input = element("input", {
      type: "radio", name: "audible", value: track.name, onchange: () => player.listen(track.name),
    });
    return element("label", { title: `${label} (key ${number + 1})` }, input, label);
  }));
  showPlayer();
}

function showPlayer() {
  $("play-icon").setAttribute("d", player.playing ? ICONS.pause : ICONS.play);
  $("play").ariaLabel = player.playing ? "Pause" : "Play";
  for (const track of tracks) {
    const here = track.name === player.audible;
    track.listen.setAttribute("aria-pressed", here);
    track.listen.textContent = here ? "Audible" : "Listen";
    track.listen.disabled = !player.has(track.name);
  }
  for (const input of $("switch").querySelectorAll("input")) {
    input.checked = input.value === player.audible;
    input.disabled = !player.has(input.value);
  }
  movePlayhead();
}

function movePlayhead() {
  if (!recording) return;
  const { position } = player;
  for (const track of tracks) track.move(Math.min(position, recording.seconds));
  const words = `${clock(position)} / ${clock(recording.seconds)}`;
  if ($("time").textContent !== words) $("time").textContent = words;
}

function tick() {
  if (player.playing) movePlayhead();
  requestAnimationFrame(tick);
}

const toggle = () => (player.playing ? player.stop() : player.play());

function keys(event) {
  const typing = event.target.matches("input:not([type=radio]), summary, button, a");
  if (!recording || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " ") toggle();
  else if (event.key === "l") $("loop").click();
  else if (tracks[Number(event.key) - 1]) player.listen(tracks[Number(event.key) - 1].name);
  else return;
  event.preventDefault();
}

// Everything is connected here.

function setToken(token) {
  prompts.token = token;
  $("plus").ariaPressed = token === "+";
  $("minus").ariaPressed = token === "-";
}

function promptsChanged() {
  $("add-prompt").disabled = prompts.count >= prompts.most;
  $("joint").disabled = prompts.count < 2;
}

function connect() {
  const on = (id, type, action) => $(id).addEventListener(type, action);
  on("choose", "click", () => $("file").click());
  on("file", "change", guarded(async () => {
    const [file] = $("file").files;
    $("file").value = "";
    if (file) await takeFile(file);
  }));
  on("example", "click", guarded(tryExample));
  on("upload-cancel", "click", () => upload?.abort());
  on("another", "click", showStart);
  on("problem-close", "click", settle);
  on("plus", "click", () => setToken("+"));
  on("minus", "click", () => setToken("-"));
  on("add-span", "click", () => {
    const start = Math.min(player.position, Math.max(0, recording.seconds - 1));
    prompts.addSpan(start, start + 1);
  });
  on("add-prompt", "click", () => {
    prompts.add();
    prompts.focus();
  });
  on("ask", "submit", (event) => {
    event.preventDefault();
    if (!job) guarded(separate)();
  });
  on("cancel", "click", cancel);
  on("frame-here", "click", showFrame);
  on("play", "click", toggle);
  on("loop", "change", () => player.setLoop($("loop").checked));
  on("volume", "input", () => { player.volume = Number($("volume").value); });
  prompts.addEventListener("change", promptsChanged);
  player.addEventListener("change", showPlayer);
  addEventListener("keydown", keys);
  addEventListener("pagehide", (event) => {
    if (!event.persisted) leave();
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file && !upload) guarded(takeFile)(file);
  });
}

async function begin() {
  model = await getJson("/api/model");
  prompts.most = Math.min(prompts.most, model.prompts);
  $("model").textContent = `model ${model.name}`;
  $("limits").textContent = `Up to ${model.max_mb} MB and ${model.max_minutes} minutes. It stays on` +
    ` this page's server and is deleted ${Math.round(model.kept_minutes)} minutes after its last use.`;
  connect();
  document.body.dataset.ready = "yes";
  tick();
}

guarded(begin)();
