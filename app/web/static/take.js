// Take home: a button asks for a file to be made; once its link stands there, the download that was asked for begins.
const wanted = new Set();
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  wanted.add(button.dataset.key);
  trigger("click", { act: button.dataset.do, key: button.dataset.key });
});
watch("value", () => {
  for (const key of [...wanted]) {
    const link = element.querySelector(`a[data-key="${key}"]`);
    if (link) {
      wanted.delete(key);
      link.click();
    }
  }
});
