// The table of runs: DataTables sorts and searches it, the selects above filter it.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark", dark.matches);
dark.addEventListener("change", follow);
follow();

const table = new DataTable("#runs", {
  order: [], pageLength: 25, lengthMenu: [10, 25, 100, { label: "all", value: -1 }], autoWidth: false,
  layout: { topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: { paging: { firstLast: false } } },
  initComplete() {      // the table scrolls sideways, by keyboard, too
    const scroll = this.api().table().node().parentElement;
    scroll.classList.add("scroll");
    Object.entries({ tabindex: "0", role: "region", "aria-label": "Table of runs" }).forEach((pair) => scroll.setAttribute(...pair));
  },
  language: { search: "Search:", lengthMenu: "_MENU_ runs per page", info: "_START_ to _END_ of _TOTAL_ runs",
    infoEmpty: "no runs", infoFiltered: "(of _MAX_)", zeroRecords: "No run matches." },
});

const selects = [...document.querySelectorAll("select[data-key]")];
table.search.fixed("selects", (text, data, index) => {
  const about = table.row(index).node().dataset;
  return selects.every((select) => !select.value || about[select.dataset.key] === select.value);
});
selects.forEach((select) => select.addEventListener("change", () => table.draw()));
document.getElementById("clear").addEventListener("click", () => {
  selects.forEach((select) => { select.value = ""; });
  table.search("").order([]).draw();
});

// a link to a run opens its folded configuration
const reveal = () => {
  const target = document.getElementById(location.hash.slice(1));
  const folded = target && target.closest("details");
  if (folded) { folded.open = true; folded.scrollIntoView(); }
};
addEventListener("hashchange", reveal);
reveal();
