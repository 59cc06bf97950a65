// Browsers start no worker from file://. There the search runs in a hidden frame with the interface of a worker.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      const script = inside.document.createElement("script");
      const ready = new Promise(loaded => script.addEventListener("load", loaded));
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      this.postMessage = data => ready.then(() => inside.dispatchEvent(new MessageEvent("message", { data })));
      script.src = url;
      inside.document.body.append(script);
    }
  };
}
