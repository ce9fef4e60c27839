// SPDX-License-Identifier: Apache-2.0
// Refresh a list: fetch the page every few seconds and replace the content of #live. Without JavaScript the page shows
// the data of the time when it was loaded.
(function () {
  "use strict";
  const live = document.getElementById("live");
  const state = document.getElementById("live-state");
  if (!live) return;

  // The ids of the ticked rows. A refresh keeps them; a row that left the list is not chosen any more.
  function chosen() {
    return Array.from(live.querySelectorAll("input[name=slip]:checked, input[name=message]:checked"), (box) => box.id);
  }

  function countChosen() {
    const count = document.getElementById("chosen-count");
    if (count) count.textContent = "Chosen: " + chosen().length;
  }

  live.addEventListener("change", countChosen);
  countChosen();

  async function refresh() {
    try {
      const response = await fetch(window.location.href, { cache: "no-store" });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const updated = page.getElementById("live");
      if (!response.ok || !updated) throw new Error(response.statusText);
      state.textContent = "Live";
      if (updated.innerHTML === live.innerHTML) return;
      const ticked = chosen();
      const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
      live.replaceChildren(...updated.childNodes);
      for (const id of ticked) {
        const box = document.getElementById(id);
        if (box) box.checked = true;
      }
      countChosen();
      if (focused) document.getElementById(focused)?.focus();
    } catch (error) {
      state.textContent = "Not live: reload the page";
    }
  }

  // The next request starts 3 s after the last response, so a slow server does not receive more requests.
  async function refreshRepeatedly() {
    if (!document.hidden) await refresh();
    window.setTimeout(refreshRepeatedly, 3000);
  }

  window.setTimeout(refreshRepeatedly, 3000);
  document.querySelectorAll("select[data-submits]").forEach(function (select) {
    select.addEventListener("change", function () { select.form.submit(); });
  });
}());
