"use strict";
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  // Tables whose columns sort: the headings become buttons.
  const value = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = make("button", { type: "button" }, ...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const rows = [...table.tBodies[0].rows];
        const sorted = heading.getAttribute("aria-sort");
        const numbers = typeof value(rows[0], column) === "number";
        // Text begins at A; of numbers the worst come first, where the heading says so.
        const first = numbers && heading.dataset.first === "descending" ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const now = sorted === first ? other : first;
        for (const one of headings) one.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", now);
        const turn = now === "ascending" ? 1 : -1;
        rows.sort((a, b) => turn * compare(value(a, column), value(b, column)));
        table.tBodies[0].append(...rows);
      });
    });
  }

  // The images of a cell of the confusion matrix, in a dialog.
  const dialog = document.getElementById("viewer");
  const show = (link) => {
    const cell = document.querySelector(link.getAttribute("href"));
    const copy = cell.cloneNode(true);
    document.getElementById("viewer-title").replaceChildren(...copy.querySelector("h3").childNodes);
    copy.querySelector("h3").remove();
    copy.querySelector(".back").remove();
    document.getElementById("viewer-body").replaceChildren(...copy.childNodes);
    dialog.addEventListener("close", () => link.focus(), { once: true });
    dialog.showModal();
    dialog.scrollTop = 0;
  };
  if (dialog && dialog.showModal) {
    document.addEventListener("click", (event) => {
      const link = event.target.closest(".matrix a");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      show(link);
    });
    document.getElementById("viewer-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }

  // The confusion matrix in another order, or of more classes.
  const source = document.getElementById("confusion-data");
  if (!source) return;
  const { classes, orders, errors, cells } = JSON.parse(source.textContent);
  const table = document.querySelector("table.matrix");
  const counts = new Map(cells.map((cell) => [`${cell[0]}-${cell[1]}`, cell]));
  const order = document.getElementById("matrix-order");
  const number = document.getElementById("matrix-classes");
  const name = (index) => make("bdi", {}, classes[index]);
  const cellOf = (given, predicted) => {
    const [, , count, shade] = counts.get(`${given}-${predicted}`) || [];
    if (!count) return make("td");
    const id = `cell-${given}-${predicted}`;
    const images = count === 1 ? "1 image" : `${count} images`;
    const what = given === predicted ? "recognised" : `taken for ${classes[predicted]}`;
    const inner = document.getElementById(id)
      ? make("a", { href: `#${id}`, class: shade, "aria-label": `${classes[given]} ${what}: ${images}` }, String(count))
      : make("span", { class: shade }, String(count));
    return make("td", {}, inner);
  };
  const draw = () => {
    const most = Number(number.value);
    const shown = new Set([...errors].slice(0, most));
    const list = orders[order.value].filter((index) => shown.has(index));
    const head = make("tr", {}, make("td"));
    for (const index of list) head.append(make("th", { scope: "col" }, make("span", {}, name(index))));
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(
      ...list.map((given) =>
        make("tr", {}, make("th", { scope: "row" }, name(given)), ...list.map((predicted) => cellOf(given, predicted))),
      ),
    );
  };
  order.addEventListener("change", draw);
  number.addEventListener("change", draw);
  document.getElementById("matrix-controls").hidden = false;
})();
