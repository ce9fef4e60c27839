// SPDX-License-Identifier: Apache-2.0
// Keep the numbers in trouble in the navigation current, on every page.
(function () {
  "use strict";
  const badges = document.querySelectorAll("[data-trouble]");
  if (!badges.length) return;
  const address = badges[0].dataset.address;

  function show(badge, number) {
    badge.hidden = number === "0";
    badge.textContent = number === null ? "?" : number;
  }

  async function refresh() {
    try {
      const response = await fetch(address, { cache: "no-store" });
      if (!response.ok) throw new Error(response.statusText);
      const trouble = await response.json();
      badges.forEach((badge) => show(badge, trouble[badge.dataset.trouble]));
    } catch (error) {
      badges.forEach((badge) => { badge.hidden = false; badge.textContent = "?"; });
    }
  }

  async function refreshRepeatedly() {
    if (!document.hidden) await refresh();
    window.setTimeout(refreshRepeatedly, 5000);
  }

  window.setTimeout(refreshRepeatedly, 5000);
}());
