/** The picture that goes with the next message: chosen, pasted or dropped. */

import { find } from "../parts/dom.js";
import { tellProblem } from "../parts/badge.js";
import { fit } from "./pictures.js";

/** An event has at most 1 MiB unless a hub says otherwise, and some of it is for the caption. */
const LARGEST_PICTURE = 1024 * 1024 - 40_000;

/** Gives `{ take() }`: the picture that is attached, if there is one, which is then attached no more. */
export function attachments() {
  const [figure, preview, facts, input] = ["#attached", "#attached-picture", "#attached-facts", "#picture"].map((one) => find(one));
  const room = find(".room");
  let picture = null;

  function set(next) {
    if (preview.src) URL.revokeObjectURL(preview.src);
    picture = next;
    figure.hidden = !next;
    preview.removeAttribute("src");
    if (!next) return;
    preview.src = URL.createObjectURL(new Blob([next.bytes], { type: next.type }));
    facts.textContent = `${next.width} × ${next.height}, ${Math.ceil(next.bytes.length / 1024)} KiB`;
  }

  async function attach(file) {
    if (!file) return;
    try {
      set(await fit(file, LARGEST_PICTURE));
      find("#text").focus();
    } catch (error) {
      tellProblem(error.message);
    }
  }

  input.addEventListener("change", () => {
    attach(input.files[0]);
    input.value = "";
  });
  find("#detach").addEventListener("click", () => set(null));
  find("#text").addEventListener("paste", (pasted) => attach(pasted.clipboardData?.files[0]));
  for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    room.addEventListener(kind, (dragged) => {
      if (!dragged.dataTransfer?.types.includes("Files")) return;
      dragged.preventDefault();
      room.classList.toggle("dropping", over);
      if (kind === "drop") attach(dragged.dataTransfer.files[0]);
    });
  }

  return {
    take() {
      const taken = picture;
      set(null);
      return taken;
    },
  };
}
