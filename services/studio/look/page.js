// What only the browser can do: the job in the page's address, copying, the last frame, two videos in step.
"use strict";
const stillmotion = {
  // Called whenever the panel shows something else.
  remember() {
    const job = document.querySelector("#sm-shown [data-job]")?.dataset.job;
    const here = new URL(location.href);
    if (!job || here.searchParams.get("job") === job) return;
    here.searchParams.set("job", job);
    history.replaceState(history.state, "", here);
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
  const language = event.target.closest?.("a.sm-language");
  if (language) language.search = location.search;  // the job goes along
});
new MutationObserver(stillmotion.remember).observe(document.documentElement, {childList: true, subtree: true});
