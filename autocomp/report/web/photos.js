// Twelve photos: what the dense model says of them and what the chosen trial says.

function setUpPhotos() {
  if (data.gallery.missing) return missing("photos", data.gallery.missing);
  byId("photos").append(
    el("p", { class: "note" }, `${capital(data.gallery.how)}, by ${nameOf(data.gallery.metric)}. Words that dense does not use are marked. Dense, then the chosen trial, each with its score.`),
    el("div", { class: "gallery", id: "gallery" }),
  );
  onChoice(drawPhotos);
}

function drawPhotos(trial) {
  byId("photos-title").textContent = `Photos: dense and trial ${trial.number}`;
  const dense = data.gallery.trials[0];
  const own = data.gallery.trials[trial.number];
  byId("gallery").replaceChildren(...data.gallery.photos.map((photo, index) =>
    el("figure", {},
      el("img", { src: photo.image, alt: photo.references[0] || photo.name, title: photo.name }),
      el("figcaption", {},
        caption("dense", dense[index], null),
        own ? caption(`trial ${trial.number}`, own[index], dense[index][0])
          : el("p", { class: "none" }, `no predictions kept of trial ${trial.number}`),
        el("details", {}, el("summary", {}, counted(photo.references.length, "reference")),
          el("ul", {}, photo.references.map((one) => el("li", {}, one))))))));
}

function caption(who, [text, score], other) {
  const known = new Set((other === null ? text : other).split(" "));
  const words = text.split(" ").flatMap((one, index) =>
    [index ? " " : "", known.has(one) ? one : el("mark", {}, one)]);
  return el("p", {}, el("small", {}, who, el("span", {}, score === null ? "" : score.toFixed(2))), el("q", {}, words));
}
