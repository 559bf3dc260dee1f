(() => {
  const root = document.documentElement, body = document.body;
  root.classList.add("js");

  const choices = { en: document.getElementById("lang-en"), ko: document.getElementById("lang-ko") };
  const language = () => (choices.ko.checked ? "ko" : "en");
  const named = (name) => body.getAttribute(`data-${name}-${language()}`);
  const show = () => {
    root.lang = language();
    document.title = named("title");
    document.querySelectorAll("button.copy").forEach((button) => { button.textContent = named("copy"); });
  };

  document.querySelectorAll(".command").forEach((box) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.addEventListener("click", () => {
      const pre = box.querySelector("pre");
      const done = () => { button.textContent = named("copied"); setTimeout(show, 1500); };
      const select = () => getSelection().selectAllChildren(pre);
      if (navigator.clipboard) navigator.clipboard.writeText(pre.textContent).then(done, select);
      else select();
    });
    box.append(button);
  });

  const asked = location.hash.slice(1);
  choices[asked === "ko" || asked === "en" ? asked : (navigator.language || "").startsWith("ko") ? "ko" : "en"].checked = true;
  Object.values(choices).forEach((choice) => choice.addEventListener("change", show));
  show();

  const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  document.querySelectorAll("table.sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells], rows = table.tBodies[0];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const order = now ? (now === "ascending" ? "descending" : "ascending") : head.dataset.first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const value = (row) => row.cells[column]?.dataset.v ?? "";
      rows.append(...[...rows.rows].sort((one, other) => {
        const a = value(one), b = value(other);
        if (a === "" || b === "") return (a === "") - (b === "");
        return order === "ascending" ? compare(a, b) : compare(b, a);
      }));
    }));
  });
})();
