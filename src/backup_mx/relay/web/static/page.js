// Two comforts; every page works without them.
"use strict";

// The overview renews itself, unless somebody reads or types in it, looks elsewhere, or said no.
(() => {
  const live = document.getElementById("live");
  if (!live) return;
  const pause = document.createElement("button");
  const note = document.createElement("p");
  let paused = false;
  const label = () => { pause.textContent = paused ? "Renew this page every 10 seconds" : "Stop renewing this page"; };
  pause.type = "button";
  pause.className = "plain";
  pause.addEventListener("click", () => { paused = !paused; label(); });
  label();
  note.className = "quiet";
  note.append(pause);
  live.after(note);

  const busy = () => paused || document.hidden || live.contains(document.activeElement)
    || String(document.getSelection()).length > 0;
  const renew = async () => {
    const answer = await fetch(location.href, { redirect: "manual" });
    if (answer.type === "opaqueredirect") return location.reload();
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    if (!fresh || busy()) return;
    live.replaceChildren(...fresh.childNodes);
    document.title = page.title;
  };
  setInterval(() => { if (!busy()) renew().catch(() => {}); }, 10000);
})();

// One box chooses all messages of the page.
(() => {
  const head = document.querySelector("#messages thead .choose");
  if (!head) return;
  const every = document.createElement("input");
  every.type = "checkbox";
  every.setAttribute("aria-label", "Choose all on this page");
  every.autocomplete = "off";
  head.replaceChildren(every);
  const boxes = [...document.querySelectorAll("#messages input[name=id]")];
  every.addEventListener("change", () => boxes.forEach((box) => { box.checked = every.checked; }));
})();
