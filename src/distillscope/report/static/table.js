"use strict";
// Search and sort of the tables that ask for it. Without it they are read as they are.
(() => {
  for (const box of document.querySelectorAll("[data-search]")) {
    const table = document.getElementById(box.dataset.search);
    const said = document.getElementById(box.dataset.search + "-count");
    const rows = [...table.tBodies[0].rows];
    const texts = rows.map((row) => (row.dataset.keys + " " + row.textContent).toLowerCase());
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      said.textContent = words.length ? `${shown} of ${rows.length}` : "";
    });
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const { sort } = row.cells[column].dataset;
        return sort === undefined ? row.cells[column].textContent.toLowerCase() : sort === "" ? null : Number(sort);
      };
      const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
      const sorted = rows.map((row) => [value(row), row]).sort(([a], [b]) =>
        a === null || b === null ? (a === null) - (b === null) : up ? order(a, b) : order(b, a)); // the empty ones last, either way
      table.tBodies[0].append(...sorted.map(([, row]) => row));
    }));
  }
})();
