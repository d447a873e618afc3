// The tables of runs: DataTables sorts and searches them, the selects above filter them.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark", dark.matches);
dark.addEventListener("change", follow);
follow();

const bodyRows = [...document.querySelectorAll("#runs tbody tr")];      // before DataTables sorts them
const selects = [...document.querySelectorAll("select[data-key]")];
const openTable = (id, label) => {
  const table = new DataTable(`#${id}`, {
    order: [], pageLength: 25, lengthMenu: [10, 25, 100, { label: "all", value: -1 }], autoWidth: false,
    layout: { topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: { paging: { firstLast: false } } },
    initComplete() {      // the table scrolls sideways, by keyboard, too
      const scroll = this.api().table().node().parentElement;
      scroll.classList.add("scroll");
      Object.entries({ tabindex: "0", role: "region", "aria-label": label }).forEach((pair) => scroll.setAttribute(...pair));
    },
    language: { search: "Search:", lengthMenu: "_MENU_ per page", info: "_START_ to _END_ of _TOTAL_",
      infoEmpty: "none", infoFiltered: "(of _MAX_)", zeroRecords: "No run matches." },
  });
  // method and sparsity are the first columns; family, data and model the last
  const place = { method: 0, sparsity: 1, family: -3, data: -2, model: -1 };
  const textOf = (cells, key) => cells.at(place[key]).textContent.trim();
  const wanted = (select) => (select.dataset.key === "sparsity" ? select.value.replace(" %", "").replace("none", "–") : select.value);
  table.search.fixed("selects", (text, data, index) => {
    const cells = [...table.row(index).node().cells];
    return selects.every((select) => !select.value || textOf(cells, select.dataset.key) === wanted(select));
  });
  return table;
};

// of the two tables one is shown, and made when it is shown first
const grouped = document.getElementById("grouped"), tables = {};
const labels = { means: "Means over seeds", runs: "Table of runs" };
const tableOf = (id) => (tables[id] ??= openTable(id, labels[id]));
const shown = () => (grouped.checked ? "means" : "runs");
const show = () => {
  Object.keys(labels).forEach((id) => { document.getElementById(`${id}-part`).hidden = id !== shown(); });
  tableOf(shown()).draw();
};
grouped.addEventListener("change", show);
selects.forEach((select) => select.addEventListener("change", () => tableOf(shown()).draw()));
document.getElementById("clear").addEventListener("click", () => {
  selects.forEach((select) => { select.value = ""; });
  Object.values(tables).forEach((table) => table.search("").order([]).draw());
});
grouped.checked = bodyRows.length > 200;
show();

// -- CSV: the rows that are shown on all pages, with exact numbers
const heads = (id) => tableOf(id).columns().header().toArray().map((cell) => cell.textContent.trim());
const exact = (cell) => cell.dataset.order ?? cell.textContent.trim();
const quoted = (text) => {
  const safe = /^[=+@\t]/.test(text) ? `'${text}` : text;      // spreadsheets compute what begins so
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
const csvOf = (id) => {
  const rows = tableOf(id).rows({ search: "applied", order: "applied" }).nodes().toArray();
  return [heads(id), ...rows.map((row) => [...row.cells].map(exact))].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
};
document.querySelectorAll("button[data-csv]").forEach((button) => button.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csvOf(button.dataset.csv)], { type: "text/csv" }));
  link.download = `dimred-${button.dataset.csv}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}));

// -- two runs side by side; text from runs is only ever set as text
const data = JSON.parse(document.getElementById("data").content.textContent);
const make = (tag, text = "", cls = "") => Object.assign(document.createElement(tag), { textContent: text, className: cls });
const tableWith = (head, lines) => {
  const table = make("table", "", "plain");
  [head, ...lines].forEach((line, i) => {
    const row = table.insertRow();
    line.forEach((cell) => {
      const place = row.appendChild(make(i ? "td" : "th"));
      place.append(cell);
    });
  });
  return table;
};
const bar = (share, cls) => {
  const cell = make("span", `${(100 * share).toFixed(1)} %`), box = make("span", "", `bar ${cls}`);
  box.style.width = `${6 * share}rem`;
  cell.prepend(box);
  return cell;
};
const svg = (tag, values, text = "") => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(values).forEach((pair) => node.setAttribute(...pair));
  node.textContent = text;
  return node;
};
const curves = (runs) => {
  const pair = runs.map((run) => ({ curve: [data.epochs[run.epochs], run.values.map((value) => value / 1e4)] }));
  const xs = pair.flatMap((run) => run.curve[0]), ys = pair.flatMap((run) => run.curve[1]);
  if (!xs.length) return make("p", "Neither run has curves.", "muted");
  const right = Math.max(...xs), low = Math.min(...ys), high = Math.max(...ys, low + 1e-3);
  const x = (value) => 45 + 440 * value / right, y = (value) => 190 - 175 * (value - low) / (high - low);
  const picture = svg("svg", { viewBox: "0 0 500 220", role: "img", "aria-label": "Accuracy over epochs" });
  [low, high].forEach((value) => picture.append(svg("text", { x: 2, y: y(value) + 4 }, `${(100 * value).toFixed(1)} %`)));
  picture.append(svg("text", { x: 45, y: 212 }, "0"), svg("text", { x: 430, y: 212 }, `${right} epochs`));
  pair.forEach((run, i) => picture.append(svg("polyline", {
    class: "ab"[i], points: run.curve[0].map((value, k) => `${x(value)},${y(run.curve[1][k])}`).join(" ") })));
  return picture;
};
const numbers = (indices) => {
  const names = [...document.querySelectorAll("#runs thead th")].map((cell) => cell.textContent.trim());
  const cells = indices.map((i) => [...bodyRows[i].cells].map((cell) => cell.textContent));
  return names.map((name, k) => [name, cells[0][k], cells[1][k]]).filter(([, a, b]) => a !== b);
};
const compare = () => {
  const place = document.getElementById("comparison"), indices = ["run-a", "run-b"].map((id) => Number(document.getElementById(id).value));
  const pair = indices.map((i) => data.runs[i]), [one, other] = pair.map((run) => data.groups[run.g]);
  const keys = [...new Set([...Object.keys(one.config), ...Object.keys(other.config)])].sort();
  const apart = keys.filter((key) => one.config[key] !== other.config[key]).map((key) => [key, one.config[key] ?? "absent", other.config[key] ?? "absent"]);
  const legend = make("p", "Validation accuracy: ");
  ["a", "b"].forEach((name) => legend.append(make("span", "", `key ${name}`), name.toUpperCase()));
  const names = data.layers[one.layers];
  const masks = one.layers === other.layers
    ? tableWith(["layer, trained and nonzero", "A", "B"], names.map((name, k) => [name, bar(pair[0].shares[k] ?? 0, "a"), bar(pair[1].shares[k] ?? 0, "b")]))
    : make("p", "The runs have different layers.", "muted");
  place.replaceChildren(
    make("h3", "Configuration"), apart.length ? tableWith(["key", "A", "B"], apart) : make("p", "No difference but the seed.", "muted"),
    make("h3", "Numbers"), tableWith(["", "A", "B"], numbers(indices)),
    make("h3", "Curves"), legend, curves(pair),
    make("h3", "Masks"), masks,
    make("p", "The overlap of the masks, weight by weight:"), make("pre", `dimred compare ${pair[0].folder} ${pair[1].folder}`));
};
setTimeout(() => {      // after the page is shown
  ["run-a", "run-b"].forEach((id, k) => {
    const select = document.getElementById(id);
    select.append(...data.runs.map((run, i) => Object.assign(make("option", `${data.groups[run.g].title}, seed ${run.seed}`), { value: i })));
    // at first, two runs that differ in more than their seed
    select.value = k ? Math.max(0, data.runs.findIndex((run) => run.g !== data.runs[0].g)) : 0;
    select.addEventListener("change", compare);
  });
  if (data.runs.length) compare();
});

// a link to a configuration opens it
const reveal = () => {
  const target = document.getElementById(location.hash.slice(1));
  const folded = target && target.closest("details");
  if (folded) { folded.open = true; folded.scrollIntoView(); }
};
addEventListener("hashchange", reveal);
reveal();
