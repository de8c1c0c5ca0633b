// Requests to the server. A refusal becomes an Error with the server's sentence.

async function sentence(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `the server answered with status ${response.status}`;
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: is it still running?");
  }
  if (!response.ok) throw new Error(await sentence(response));
  return response;
}

export const getJson = async (path) => (await ask(path)).json();
export const getBytes = async (path, signal) => (await ask(path, { signal })).arrayBuffer();
export const remove = (path) => ask(path, { method: "DELETE", keepalive: true });

export async function post(path, body) {
  const headers = { "content-type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

// Sends a file; `progress(share)` is called while it goes. Returns the answer and `abort`.
export function send(file, progress) {
  const request = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    request.open("POST", `/api/recordings?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => progress(event.loaded / (event.total || 1));
    request.onload = () => {
      if (request.status === 201) resolve(request.response);
      else reject(new Error(request.response?.error ?? `status ${request.status}`));
    };
    request.onerror = () => reject(new Error("the upload was interrupted: try again"));
    request.onabort = () => resolve(null);
    request.send(file);
  });
  return { answer, abort: () => request.abort() };
}
