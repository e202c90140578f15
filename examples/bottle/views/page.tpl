<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width">
  <title>A Bottle site</title>
  <link rel="stylesheet" href="/static/style.css">
</head>
<body>
<main>
  <h1>{{ f"Hello, {visitor}." if visitor else "Bottle is awake." }}</h1>
  % if who["requests"] == 1:
  <p class="story">Nothing ran here a moment ago: your visit woke it.</p>
  % else:
  <p class="story">Awake for {{ who["awake"] }} s, {{ who["requests"] }} requests answered.</p>
  % end

  <h2>Who answered</h2>
  <dl>
    <dt>Backend</dt><dd>{{ who["backend"] }}</dd>
    <dt>Process</dt><dd>{{ who["pid"] }}</dd>
    <dt>User</dt><dd>uid {{ who["uid"] }}</dd>
    <dt>Requests</dt><dd>{{ who["requests"] }}</dd>
    <dt>Awake for</dt><dd>{{ who["awake"] }} s</dd>
  </dl>

  <h2>Your name, kept in a cookie</h2>
  <form method="post" action="/">
    <input type="text" name="name" aria-label="Your name" maxlength="40" value="{{ visitor or '' }}" required>
    <button>Say hello</button>
  </form>

  <h2>A file's length and SHA-256</h2>
  <form method="post" action="/upload" enctype="multipart/form-data">
    <input type="file" name="file" aria-label="A file" required>
    <button>Upload</button>
  </form>

  <h2>More pages</h2>
  <ul>
    <li><a href="/download?mb=100">a download of 100 MB</a></li>
    <li><a href="/broken">a page that fails</a></li>
    <li><a href="/nowhere">a page that is not there</a></li>
  </ul>
</main>
</body>
</html>
