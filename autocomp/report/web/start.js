// Puts the page together, then shows the trial to begin with.

drawHead();
drawHeadline();
onChoice(drawChosen);
setUpPlot();
setUpPhotos();
setUpLayers();
setUpTable();
drawImportance();
drawProgress();
drawCost();
const first = firstChoice();
if (first === null) byId("chosen").append(el("p", { class: "note" }, "No trial has ended yet."));
else choose(first, true);
