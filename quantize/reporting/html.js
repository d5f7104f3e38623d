"use strict";
// Sorting, tabs and the figures of a bubble. Without it the page shows everything, too.
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const column = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "") || 0; // empty last
      const numbers = Number(x) - Number(y);
      const way = up ? 1 : -1;
      return way * (Number.isNaN(numbers) ? x.localeCompare(y) : numbers);
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
  });
}
for (const tabs of document.querySelectorAll(".tabs")) {
  const buttons = [...tabs.querySelectorAll("button")];
  const show = (chosen) => {
    for (const button of buttons) {
      const on = button === chosen;
      button.setAttribute("aria-selected", on);
      document.getElementById(button.dataset.panel).hidden = !on;
    }
  };
  for (const button of buttons) button.addEventListener("click", () => show(button));
  tabs.hidden = buttons.length < 2;
  show(buttons[0]);
}
const tip = document.getElementById("tip");
const tips = JSON.parse(document.getElementById("tips").textContent);
const light = (number, on) => {
  for (const row of document.querySelectorAll(`tr[data-file="${number}"]`))
    row.classList.toggle("lit", on);
};
for (const bubble of document.querySelectorAll('svg [id*="-file-"]')) {
  const number = Number(bubble.id.split("-file-")[1]);
  const [name, ...lines] = tips[number];
  bubble.setAttribute("tabindex", "0");
  bubble.setAttribute("role", "img");
  bubble.setAttribute("aria-label", [name, ...lines].join("; "));
  const show = (x, y) => {
    const bold = document.createElement("b");
    bold.textContent = name;
    tip.replaceChildren(bold);
    for (const line of lines) {
      const text = document.createElement("span");
      text.textContent = line;
      tip.append(text, document.createElement("br"));
    }
    tip.hidden = false;
    const left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8);
    const above = y + 14 + tip.offsetHeight > innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above ? y - tip.offsetHeight - 14 : y + 14}px`;
    light(number, true);
  };
  const hide = () => {
    tip.hidden = true;
    light(number, false);
  };
  bubble.addEventListener("pointermove", (event) => show(event.clientX, event.clientY));
  bubble.addEventListener("pointerleave", hide);
  bubble.addEventListener("focus", () => {
    const box = bubble.getBoundingClientRect();
    show(box.right, box.top);
  });
  bubble.addEventListener("blur", hide);
}
addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("details")) closed.open = true;
});
