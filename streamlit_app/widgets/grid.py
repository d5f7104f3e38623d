"""Selecting tiles of a grid: click a picture or its checkbox, Shift and click for a
range, arrows to move, Space to select, Shift and arrows to extend.

A tile is a container with the key "tile ..." that holds one checkbox. The script only
clicks the checkboxes, so Streamlit sees changes of checkboxes alone.
"""

from __future__ import annotations

import streamlit as st

_SELECTING = """<script>
(() => {
  const old = window.edgegraftSelecting;
  if (old) for (const name of ["click", "keydown"])
    document.removeEventListener(name, old[name], true);
  const TILE = '[class*="st-key-tile-"]';
  const tileOf = (event) => event.target.closest?.(TILE);
  const boxOf = (tile) => tile.querySelector("input[type=checkbox]");
  const boxes = () => [...document.querySelectorAll(TILE)]
    .map(boxOf).filter(Boolean);
  const set = (box, on) => { if (box.checked !== on) box.click(); };
  let last = null;
  const click = (event) => {
    const tile = tileOf(event);
    if (!tile || !event.isTrusted || event.target.matches("input")) return;
    const box = boxOf(tile);
    if (!box || !event.target.closest("img, label")) return;
    if (event.shiftKey && last?.isConnected && last !== box) {
      event.preventDefault();
      const all = boxes();
      const [from, to] = [all.indexOf(last), all.indexOf(box)].sort((a, b) => a - b);
      all.slice(from, to + 1).forEach((other) => set(other, last.checked));
    } else if (event.target.closest("img")) {
      box.click();
    }
    last = box;
    box.focus();
  };
  const keydown = (event) => {
    const tile = tileOf(event);
    if (!tile || !event.target.matches("input[type=checkbox]")) return;
    const all = boxes();
    const top = (box) => box.closest(TILE).getBoundingClientRect().top;
    const columns = all.filter((box) => top(box) - top(all[0]) < 20).length;
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns};
    const next = all[all.indexOf(event.target) + step[event.key]];
    if (!next) return;
    event.preventDefault();
    if (event.shiftKey) {
      set(event.target, true);
      set(next, true);
    }
    last = next;
    next.focus();
  };
  window.edgegraftSelecting = {click, keydown};
  document.addEventListener("click", click, true);
  document.addEventListener("keydown", keydown, true);
})();
</script>"""


def selecting() -> None:
    st.html(_SELECTING, unsafe_allow_javascript=True)
