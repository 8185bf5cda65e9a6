"use strict";
window.addEventListener("error", (event) => { document.documentElement.dataset.error = event.message; });

const value = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.s === undefined ? cell.textContent : cell.dataset.s;
};

function compare(a, b) {
  const x = Number(a), y = Number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
}

function sort(table, head, descending) {
  const column = head.cellIndex;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [value(row, column), row]);
  // A missing value comes last in either direction.
  rows.sort(([a], [b]) => (a === "") - (b === "") || (descending ? compare(b, a) : compare(a, b)));
  body.append(...rows.map(([, row]) => row));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

function filter(input) {
  const table = document.getElementById(input.dataset.filter);
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  document.querySelector(`[data-count="${input.dataset.filter}"]`).textContent = `${shown} of ${rows.length}`;
}

// #sort=runs:test_accuracy sorts upward, #sort=runs:-test_accuracy downward.
function follow() {
  const match = /^#sort=(\w+):(-?)(\w+)$/.exec(decodeURIComponent(location.hash));
  if (!match) return;
  const table = document.getElementById(match[1]);
  const head = table && table.querySelector(`th[data-key="${match[3]}"]`);
  if (!head) return;
  const folded = table.closest("details");
  if (folded) folded.open = true;
  sort(table, head, match[2] === "-");
}

for (const head of document.querySelectorAll("th[data-key]")) {
  head.firstElementChild.addEventListener("click", () => {
    sort(head.closest("table"), head, head.getAttribute("aria-sort") === "ascending");
  });
}
for (const input of document.querySelectorAll("input[data-filter]")) {
  input.addEventListener("input", () => filter(input));
  filter(input);
}
window.addEventListener("hashchange", follow);
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
follow();
document.documentElement.dataset.ready = "yes";
