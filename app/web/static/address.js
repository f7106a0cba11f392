// The address of the page names the opened scene, so that a reload, a bookmark or the back button finds it.
function remember() {
  const job = element.querySelector("[data-job]")?.dataset.job;
  const address = new URL(window.location.href);
  if ((address.searchParams.get("job") || "") === (job || "")) return;
  if (job) address.searchParams.set("job", job);
  else address.searchParams.delete("job");
  window.history.replaceState(null, "", address);
}
watch("value", remember);
if (element.querySelector("[data-job]")) remember();
