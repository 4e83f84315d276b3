// Says when the page is no longer up to date, and reads a chosen file into a text field.
"use strict";
(() => {
  const SILENT_MS = 12000;
  const place = document.getElementById("connection");
  const live = document.getElementById("live");
  let heard = Date.now();
  let refused = 0;

  function say(text) {
    if (place.textContent !== text) place.textContent = text;
  }
  function hear() {
    heard = Date.now();
    refused = 0;
    say("");
  }
  function look() {
    if (document.hidden) return;
    if (refused === 401) {
      say("Signed out: open a new address, or sign in again.");
      return;
    }
    if (Date.now() - heard < SILENT_MS && !refused) return;
    const then = new Date(heard).toLocaleTimeString();
    say(`No connection: this is the state of ${then}. Trying again.`);
    live.dispatchEvent(new Event("again"));
  }
  if (live) {
    live.addEventListener("htmx:sse:after:connection", hear);
    live.addEventListener("htmx:sse:after:message", hear);
    live.addEventListener("htmx:sse:error", (event) => {
      refused = event.detail.status || 1;
      look();
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) heard = Date.now();
    });
    setInterval(look, 2000);
  }
  for (const input of document.querySelectorAll("input[type=file][data-into]")) {
    input.addEventListener("change", async () => {
      const file = input.files[0];
      if (file) document.getElementById(input.dataset.into).value = await file.text();
    });
  }
})();
