"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const plot = document.getElementById("plot");
  const tip = document.getElementById("tip");
  const picture = tip.querySelector("img");
  const lines = tip.querySelectorAll("p");
  const boxes = [...document.querySelectorAll("input.class")];
  const rings = document.getElementById("mistakes");
  const only = document.getElementById("only");
  await Bokeh.embed.embed_item(data.plot, "plot");
  const drawn = Bokeh.documents[0];
  const points = drawn.get_model_by_name("points");
  const source = points.data_source;
  const isWrong = new Set(data.mistaken);

  const update = () => {
    const shown = boxes.map((box) => box.checked);
    points.view.filter.booleans = data.class.map((number, row) => shown[number] && (!only?.checked || isWrong.has(row)));
    drawn.get_model_by_name("rings").view.filter.booleans = data.mistaken.map(
      (row) => shown[data.class[row]] && rings.checked);
  };
  for (const box of [...boxes, rings, only]) {
    box?.addEventListener("change", update);
  }
  for (const [id, checked] of [["all", true], ["none", false]]) {
    document.getElementById(id).addEventListener("click", () => {
      boxes.forEach((box) => { box.checked = checked; });
      update();
    });
  }

  const place = (event) => {
    const left = event.clientX + 16, top = event.clientY + 16;
    tip.style.left = `${Math.max(0, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(0, top + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 16 : top)}px`;
  };
  let shownRow = null;
  const show = () => {
    const row = source.inspected.indices[0] ?? null;
    if (row === shownRow) return;
    shownRow = row;
    tip.hidden = row === null;
    plot.style.cursor = row === null || !data.links[row] ? "" : "pointer";
    if (row === null) return;
    const embedded = data.pictures[row];
    const file = embedded ? `data:image/webp;base64,${embedded}` : data.links[row];
    picture.hidden = !file;
    if (file) picture.src = file;
    const said = data.predicted[row];
    lines[0].textContent = data.classes[data.class[row]];
    lines[1].textContent = said === null ? "" : isWrong.has(row) ? `taken for ${said}` : "recognised";
    lines[2].textContent = data.paths[row];
  };
  picture.addEventListener("error", () => { picture.hidden = true; });
  source.inspect.connect(show);
  plot.addEventListener("pointermove", (event) => { if (!tip.hidden) place(event); });
  plot.addEventListener("pointerleave", () => { tip.hidden = true; shownRow = null; });

  source.selected.properties.indices.change.connect(() => {
    const row = source.selected.indices[0];
    if (row === undefined) return;
    source.selected.indices = [];
    if (data.links[row]) open(data.links[row], "_blank", "noopener");
  });

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = () => {
    drawn.get_model_by_name("rings").glyph.line_color = { value: dark.matches ? "white" : "black" };
  };
  dark.addEventListener("change", colour);
  colour();
  document.body.dataset.ready = "yes";
})();
