// The page: sections by name, what is shown first, and the address.

const sections = {
  cost: costSection(),
  memory: memorySection(),
  latency: latencySection(),
  quality: qualitySection(),
  samples: samplesSection(),
  origins: originsSection(),
};

function show(name) {
  sections[name]?.();
}

// Takes the address over: controls show it, sections follow.
function follow() {
  state.read();
  for (const control of controls) control.sync();
  Object.keys(sections).forEach(show);
  state.write();
  if (state.section) document.getElementById(state.section)?.scrollIntoView();
}

document.querySelectorAll("#tables table.sortable").forEach(sortable);
document.querySelectorAll("form.controls").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
document.getElementById("reset").addEventListener("click", () => { state.chosen = {}; state.section = ""; state.write(); follow(); scrollTo(0, 0); });
addEventListener("hashchange", follow);

// The section that is being read stands out among the links.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) links.forEach((link, name) => link.toggleAttribute("aria-current", name === target.id));
  }
}, { rootMargin: "-30% 0px -65% 0px" });
document.querySelectorAll("main section").forEach((section) => reading.observe(section));

follow();
paintLooks();
document.documentElement.dataset.ready = "yes";
