// What only the browser can do: the job in the page's address, copying, the last frame, two videos in step.
"use strict";
const stillmotion = {
  // Called whenever the panel shows something else: a new job comes into sight, as it is below the form on a phone.
  remember() {
    const panel = document.querySelector("#sm-shown"), job = panel?.querySelector("[data-job]")?.dataset.job;
    const here = new URL(location.href);
    if (!job || here.searchParams.get("job") === job) return;
    here.searchParams.set("job", job);
    history.replaceState(history.state, "", here);
    const top = panel.getBoundingClientRect().top;
    if (top < 0 || top > innerHeight / 2) panel.scrollIntoView({behavior: "smooth", block: "start"});
  },

  // Gradio opens a dropdown's list once more when it is left by Tab. Not by :focus-within, which Chromium leaves on where
  // a list that could be scrolled had the focus and went.
  hideLeftLists() {
    for (const list of document.querySelectorAll(".block .options")) {
      const isLeft = !list.closest(".block").contains(document.activeElement);
      list.style.setProperty("visibility", isLeft ? "hidden" : "visible");
    }
  },

  async copy(button) {
    const hasPicture = button.closest(".sm-result")?.querySelector(".sm-before") != null;
    const text = hasPicture ? button.dataset.copyPicture : button.dataset.copyWords;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not over plain http from another machine
      const area = Object.assign(document.createElement("textarea"), {value: text});
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const said = button.textContent;
    button.textContent = button.dataset.done;
    setTimeout(() => { button.textContent = said; }, 1500);
  },

  // At most two; the later mark takes the place of the one before.
  mark(button) {
    const all = [...document.querySelectorAll("[data-compare]")];
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    const marked = all.filter((one) => one.getAttribute("aria-pressed") === "true");
    if (marked.length > 2) marked.find((one) => one !== button).setAttribute("aria-pressed", "false");
    const pair = all.filter((one) => one.getAttribute("aria-pressed") === "true");
    const stage = document.querySelector(".sm-stage");
    stage.hidden = pair.length !== 2;
    if (stage.hidden) return stage.querySelectorAll("video").forEach((video) => video.pause());
    const videos = [...stage.querySelectorAll("video")];
    videos.forEach((video, at) => {
      video.src = `/media/${pair[at].dataset.compare}/video`;
      video.load();
    });
    stage.scrollIntoView({behavior: "smooth", block: "start"});
    stillmotion.inStep(...videos);
  },

  // What is done to either is done to the other; while both play, the second keeps to the first's time.
  inStep(first, second) {
    if (first.dataset.inStep) return;
    first.dataset.inStep = "yes";
    for (const [one, other] of [[first, second], [second, first]]) {
      one.addEventListener("play", () => { if (other.paused) other.play(); });
      one.addEventListener("pause", () => { if (!other.paused && !one.ended) other.pause(); });
      one.addEventListener("seeked", () => {
        if (one.paused && Math.abs(other.currentTime - one.currentTime) > 0.02) other.currentTime = one.currentTime;
      });
    }
    setInterval(() => {
      if (!first.paused && Math.abs(first.currentTime - second.currentTime) > 0.08 && first.currentTime < second.duration) {
        second.currentTime = first.currentTime;
      }
    }, 250);
  },

  // The last frame of the shown video as a data URI; "" where there is none.
  async lastFrame() {
    const shown = document.querySelector("#sm-shown video");
    if (!shown) return "";
    const video = Object.assign(document.createElement("video"), {muted: true, preload: "auto", src: shown.currentSrc});
    await new Promise((resolve) => { video.onloadeddata = video.onerror = resolve; });
    if (!video.duration) return "";
    await new Promise((resolve) => {
      video.onseeked = video.onerror = resolve;
      video.currentTime = Math.max(0, video.duration - 0.001);
    });
    const canvas = Object.assign(document.createElement("canvas"), {width: video.videoWidth, height: video.videoHeight});
    canvas.getContext("2d").drawImage(video, 0, 0);
    document.querySelector("#sm-picture")?.scrollIntoView({behavior: "smooth", block: "center"});
    return canvas.toDataURL("image/png");
  },
};
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-done]");
  if (button) stillmotion.copy(button);
  const mark = event.target.closest?.("button[data-compare]");
  if (mark) stillmotion.mark(mark);
  if (event.target.closest?.("button[data-play]")) {
    document.querySelectorAll(".sm-stage video").forEach((video) => { video.currentTime = 0; video.play(); });
  }
  const language = event.target.closest?.("a.sm-language");
  if (language) language.search = location.search;  // the job goes along
});
document.addEventListener("focusin", stillmotion.hideLeftLists);
// The way out is shown to those who came in with a key, once the header is there.
fetch("/session").then((answer) => answer.json()).then(({has_key}) => {
  if (has_key) document.head.append(Object.assign(document.createElement("style"), {textContent: ".sm-logout { display: block !important; }"}));
});
new MutationObserver(() => {
  if (document.querySelector("#sm-header")) document.documentElement.classList.remove("sm-loading");
  stillmotion.remember();
  stillmotion.hideLeftLists();
}).observe(document.documentElement, {childList: true, subtree: true});
