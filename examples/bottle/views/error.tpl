<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width">
  <title>{{ title }}</title>
  <link rel="stylesheet" href="/static/style.css">
</head>
<body>
<main>
  <h1>{{ title }}</h1>
  <p class="story">{{ text }} <a href="/">Back to the first page.</a></p>
</main>
</body>
</html>
