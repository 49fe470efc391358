for (const slider of document.querySelectorAll("input[data-overlay]")) {
  const overlay = document.getElementById(slider.dataset.overlay);
  const reading = slider.parentElement.querySelector("output");
  const show = () => {
    overlay.style.opacity = slider.value / 100;
    reading.value = slider.value + "%";
  };
  slider.addEventListener("input", show);
  show();
}

for (const element of document.querySelectorAll("[data-scripted]")) element.hidden = false;

addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});

const review = document.getElementById("review");
const time = document.getElementById("review-time");
review.addEventListener("input", () => {
  if (time.value) return;
  const now = new Date();
  time.value = new Date(now - now.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
});
document.getElementById("print").addEventListener("click", () => window.print());
document.getElementById("save").addEventListener("click", () => {
  const answers = [...review.querySelectorAll("tr[data-finding]")].map((row) => ({
    finding: row.dataset.finding,
    answer: row.querySelector("input:checked")?.value ?? null,
    comment: row.querySelector("input[type=text]").value,
  }));
  const content = {
    report_id: review.dataset.report,
    reviewer: document.getElementById("review-name").value,
    reviewed_at: time.value,
    answers,
  };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)]));
  link.download = review.dataset.report + "-review.json";
  link.click();
});
