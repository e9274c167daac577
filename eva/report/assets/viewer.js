// The viewer: one frame as large as the window allows, with its time and the call that brought it.

const viewer = { frames: [], at: 0 };

// `frames` are those of a sample in the order in which the agent got them, as { frame, name, call, round }.
function openViewer(frames, at) {
  viewer.frames = frames;
  byId("viewer").showModal();
  viewFrame(at);
}

function viewFrame(at) {
  if (!viewer.frames[at]) return;
  viewer.at = at;
  const { frame, name, call, round } = viewer.frames[at];
  const place = element("div", { class: "whole" });
  const where = `${name} · round ${round + 1} · frame ${at + 1} of ${viewer.frames.length} of this sample`;
  byId("viewer").replaceChildren(place, element("p", {}, element("b", {}, where)), callLine(call),
    element("nav", { class: "buttons", "aria-label": "Walk the frames" },
      button(["Previous", element("kbd", {}, "←")], () => viewFrame(at - 1), { disabled: at === 0 }),
      button(["Next", element("kbd", {}, "→")], () => viewFrame(at + 1), { disabled: at + 1 === viewer.frames.length }),
      button(["Close", element("kbd", {}, "esc")], () => byId("viewer").close())));
  byId("viewer").focus();
  showWhole(place, frame, name);
}

// The file where it can be loaded, else the thumbnail, else why there is none.
async function showWhole(node, frame, name) {
  const { small, whole, no } = await placeOf(frame.path);
  const gone = () => node.replaceChildren(element("span", { class: "gone" }, no || "no longer there"));
  const enlarged = () => node.replaceChildren(pictureAt(small, name, gone),
    element("small", {}, "This is the thumbnail, enlarged: the file of the frame cannot be shown."));
  if (whole) node.replaceChildren(pictureAt(whole, name, small === whole ? gone : enlarged));
  else gone();
}

function pictureAt(address, name, failed) {
  const image = element("img", { alt: name, src: address });
  image.addEventListener("error", failed);
  return image;
}

function listenToViewer() {
  byId("viewer").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    viewFrame(viewer.at + step);
  });
  // A click beside the picture closes it. The dialog itself is the target of no other click.
  byId("viewer").addEventListener("click", (event) => { if (event.target === byId("viewer")) byId("viewer").close(); });
}
