"""A chat in real time: an ordinary Django project with one WebSocket, served by gpulse."""
