// Thumbnails: buttons inside the list tell the server what to do with which photo.
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  if (button.dataset.sure && !window.confirm(button.dataset.sure)) return;
  trigger("click", { act: button.dataset.do, key: button.dataset.key });
});
