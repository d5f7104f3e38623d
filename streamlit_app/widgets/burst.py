"""Photos from the browser's camera, one or many after a countdown.

The browser puts them as JPEG files into the page's drop zone, as if they had been
chosen there.
"""

from __future__ import annotations

import streamlit as st

COUNTDOWN_S, EVERY_MS = 3, 300
BURSTS = [10, 1, 30]  # photos of one click, the default first

# Streamlit removes scripts that contain markup, so this one creates its elements
_BURST = """<div class="eg eg-burst"></div><script>
(() => {
  const root = document.querySelector(".eg-burst");
  if (!root || root.childElementCount) return;
  const add = (to, name, settings) =>
    to.appendChild(Object.assign(document.createElement(name), settings));
  const video = add(root, "video", {muted: true, playsInline: true});
  video.setAttribute("aria-label", "What the camera sees");
  const label = add(root, "label", {textContent: "Photos "});
  const select = add(label, "select", {});
  for (const count of OPTIONS) add(select, "option", {textContent: count});
  const button = add(root, "button",
    {type: "button", textContent: "Start the camera"});
  const status = add(root, "p", {role: "status"});
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const photo = async (index) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    return new File([blob], `camera-${Date.now()}-${index}.jpg`, {type: blob.type});
  };
  const burst = async () => {
    for (let left = COUNTDOWN; left; left--) {
      status.textContent = `${left} …`;
      await wait(1000);
    }
    const carrier = new DataTransfer();
    const total = Number(select.value);
    for (let index = 1; index <= total; index++) {
      carrier.items.add(await photo(index));
      status.textContent = `${index} of ${total}`;
      await wait(EVERY);
    }
    status.textContent = "";
    const input = document.querySelector(
      '[data-testid="stFileUploaderDropzoneInput"]');
    input.files = carrier.files;
    input.dispatchEvent(new Event("change", {bubbles: true}));
  };
  button.onclick = async () => {
    button.disabled = true;
    try {
      if (button.textContent !== "Take photos") {
        video.srcObject ??= await navigator.mediaDevices.getUserMedia({video: true});
        await video.play();
        button.textContent = "Take photos";
        status.textContent = "";
      } else {
        await burst();
      }
    } catch (error) {
      status.textContent = navigator.mediaDevices
        ? `No camera: ${error.message}`
        : "No camera: browsers allow it on https and on localhost only.";
    }
    button.disabled = false;
  };
  new MutationObserver((_, watcher) => {
    if (root.isConnected) return;
    video.srcObject?.getTracks().forEach((track) => track.stop());
    watcher.disconnect();
  }).observe(document.body, {childList: true, subtree: true});
})();
</script>"""


def burst() -> None:
    """The camera's picture, how many photos, and the button."""
    script = _BURST.replace("COUNTDOWN", str(COUNTDOWN_S))
    script = script.replace("OPTIONS", str(BURSTS)).replace("EVERY", str(EVERY_MS))
    st.html(script, unsafe_allow_javascript=True)
