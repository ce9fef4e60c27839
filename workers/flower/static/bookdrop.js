// SPDX-License-Identifier: Apache-2.0
// Keeps a list fresh: every few seconds the page is fetched again, and what is in #live replaced. Without it the page
// works as well, and shows what was true when it was loaded.
(function () {
  "use strict";
  const live = document.getElementById("live");
  const state = document.getElementById("live-state");
  if (!live) return;

  async function refresh() {
    try {
      const answer = await fetch(window.location.href, { cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      if (!answer.ok || !fresh) throw new Error(answer.statusText);
      state.textContent = "Live";
      if (fresh.innerHTML === live.innerHTML) return;
      const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
      live.replaceChildren(...fresh.childNodes);
      if (focused) document.getElementById(focused)?.focus();
    } catch (error) {
      state.textContent = "Not live: reload the page";
    }
  }

  // The next one 3 s after the last one has come: a busy server is not asked the more for it.
  async function keepFresh() {
    if (!document.hidden) await refresh();
    window.setTimeout(keepFresh, 3000);
  }

  window.setTimeout(keepFresh, 3000);
  document.querySelectorAll("select[data-submits]").forEach(function (each) {
    each.addEventListener("change", function () { each.form.submit(); });
  });
}());
