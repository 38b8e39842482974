element.setAttribute("aria-live", "polite");
element.addEventListener("input", (event) => {
  if (!event.target.matches("[data-blend]")) return;
  event.target.closest("figure").style.setProperty("--blend", event.target.value / 100);
});
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-sort]");
  if (!button) return;
  const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const value = (row) => row.cells[head.cellIndex].dataset.value;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");  // missing values come last, both ways
    const numbers = !isNaN(a) && !isNaN(b);
    const order = numbers ? a - b : a.localeCompare(b, undefined, { numeric: true });
    return ascending ? order : -order;
  };
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
});
